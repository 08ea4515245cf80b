"""Who trains what: the claims of the methods, as properties of gradients."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from tiny_configs import TINY_CONFIGS
from tiny_models import make_padded_batch

from sweet_jax.arrays import Batch, Params
from sweet_jax.data.batches import BatchPlan, make_batch
from sweet_jax.data.packing import make_packed_batch, pack_texts
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.exits.learned import compute_lte_losses
from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.models.attention import compute_masked_softmax
from sweet_jax.models.init import init_params, make_example_batch
from sweet_jax.models.multi_exit import (
    MultiExitClassifier,
    find_segment,
    join_models,
    pack_model,
    scale_seam,
    split_model,
)
from sweet_jax.settings.fields import ExitSettings, Settings
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.resolve import resolve_released_exits
from sweet_jax.training.losses import compute_exit_losses
from sweet_jax.training.methods import Member, make_members, separates_segments
from sweet_jax.trees import flatten_paths

LAYERS = (0, 1, 3)


@pytest.fixture(scope="module")
def config():
    return parse_config(TINY_CONFIGS["bert"])


# Nothing shared. The rest, with a norm inside each exit or tables shared by layers, run
# with -m slow.
KINDS = ("bert",)
# Unlike it in most: a norm inside each exit, a table shared by layers.
UNLIKE = ("deberta-v2", "modernbert")


@pytest.fixture(
    scope="module",
    params=[
        name if name in KINDS else pytest.param(name, marks=pytest.mark.slow)
        for name in TINY_CONFIGS
    ],
)
def any_config(request):
    """Every family: what is claimed of methods is claimed of each encoder."""
    return parse_config(TINY_CONFIGS[request.param])


@pytest.fixture(
    scope="module",
    params=[
        "bert",
        *(pytest.param(name, marks=pytest.mark.slow) for name in UNLIKE),
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in sorted(TINY_CONFIGS.keys() - {"bert", *UNLIKE})
        ),
    ],
)
def further_config(request):
    """Every family, for what follows from the gradients that `any_config` shows."""
    return parse_config(TINY_CONFIGS[request.param])


@pytest.fixture(scope="module")
def batch() -> Batch:
    return make_padded_batch(3)


@functools.cache
def init_encoder(encoder: Any) -> Any:
    return jax.jit(encoder.init)(jax.random.key(1), make_example_batch())


def build(
    config: Any, **fields: Any
) -> tuple[tuple[Member, ...], list[MultiExitClassifier], list[Params], Settings]:
    """Returns members, models and equal initial weights of a method."""
    settings = from_config_dict(fields)
    if settings.faithful_release:
        settings = resolve_released_exits(settings, dropout=0.1, has_pooler=False)
    members = make_members(settings, len(LAYERS))
    encoder = make_encoder(config, 4, jnp.float32)
    model = MultiExitClassifier(
        encoder=encoder,
        exit_layers=LAYERS,
        exit_numbers=(0, 1, 2),
        num_classes=3,
        features=config.hidden_size,
        settings=settings.exits,
        shared_pooler=settings.faithful_release,
    )
    models = split_model(
        model,
        [member.exits for member in members],
        separates_segments(members) and not settings.faithful_release,
    )
    full = init_encoder(encoder)
    params = []
    for model in models:
        depth = model.exit_layers[-1] + 1
        cut = {
            name: part
            for name, part in full["params"].items()
            if not name.startswith("layer_") or int(name[6:]) < depth
        }
        norm: Any = encoder.make_final_norm()
        final_norm = None
        if norm is not None:
            # Not the ones of a fresh norm, so that a lost copy shows.
            scale = np.linspace(0.5, 2, config.hidden_size, dtype=np.float32)
            final_norm = {"scale": scale}
        params.append(init_params(model, jax.random.key(2), cut, None, final_norm))
    return members, list(models), params, settings


def compute_gradients(
    model: MultiExitClassifier,
    member: Member,
    params: Params,
    batch: Batch,
    compute_losses: Callable[..., tuple[Any, ...]] = compute_exit_losses,
) -> list[dict[str, np.ndarray]]:
    """Returns d CE_j (or loss_j) / d params in training mode, flat, for every exit."""
    (objective,) = member.phases[0].objectives

    def losses(p: Params) -> tuple[jax.Array, ...]:
        outputs: Any = model.apply(
            {"params": p},
            batch,
            train=True,
            seam_scale=objective.seam_scale,
            rngs={"dropout": jax.random.key(5)},
        )
        sums = compute_losses(outputs, batch.labels, batch.weights)
        return tuple(map(jnp.asarray, sums))

    # Op by op: the small kernels are compiled once for all tests of this file.
    values, pull_back = jax.vjp(losses, params)
    gradients = []
    for j in range(len(values)):
        direction = tuple(jnp.float32(i == j) for i in range(len(values)))
        gradients.append(flatten_paths(pull_back(direction)[0]))
    return jax.tree.map(np.asarray, gradients)


def by_segment(flat: dict[str, np.ndarray]) -> dict[int, dict[str, np.ndarray]]:
    groups: dict[int, dict[str, np.ndarray]] = {}
    for path, value in flat.items():
        groups.setdefault(find_segment(path, LAYERS), {})[path] = value
    return groups


def test_sweet_cross_gradients_are_exactly_zero(any_config, batch):
    members, models, params, _ = build(any_config, method="sweet")
    gradients = compute_gradients(models[0], members[0], params[0], batch)
    for j in range(3):
        groups = by_segment(gradients[j])
        for i, group in groups.items():
            if i != j:
                assert all((g == 0).all() for g in group.values()), (i, j)
            else:
                # Key biases never matter to a softmax; all else learns.
                idle = [p for p, g in group.items() if not g.any()]
                assert all(p.endswith("attention/key/bias") for p in idle), idle


def test_early_exit_trains_every_segment_up_to_the_exit(any_config, batch):
    members, models, params, _ = build(any_config, method="early_exit")
    gradients = compute_gradients(models[0], members[0], params[0], batch)
    for j in range(3):
        groups = by_segment(gradients[j])
        for i, group in groups.items():
            learns = any(g.any() for p, g in group.items() if p.startswith("encoder/"))
            assert learns == (i <= j), (i, j)


def test_boundary_scale_is_a_power_of_the_distance(further_config, batch):
    a = 0.2
    joint_members, *_ = build(further_config, method="early_exit")
    # The same model under both: each segment with its own copy of shared tables.
    members, models, params, _ = build(
        further_config, method="sweet", boundary_gradient_scale=a
    )
    joint = compute_gradients(models[0], joint_members[0], params[0], batch)
    scaled = compute_gradients(models[0], members[0], params[0], batch)
    for j in range(3):
        for path, value in scaled[j].items():
            i = find_segment(path, LAYERS)
            expected = joint[j][path] * a ** max(j - i, 0)
            np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-8)


@pytest.mark.parametrize("train", [False, True])
def test_forward_passes_of_all_seams_are_identical(config, batch, train):
    _, models, params, _ = build(config, method="sweet")

    def forward(scale: float) -> list[np.ndarray]:
        outputs: Any = models[0].apply(
            {"params": params[0]},
            batch,
            train=train,
            seam_scale=(scale,) * 2,
            rngs={"dropout": jax.random.key(0)},
        )
        return [np.asarray(o.logits_BC) for o in outputs]

    for other in (0.0, 0.3):
        for one, two in zip(forward(1.0), forward(other), strict=True):
            np.testing.assert_array_equal(one, two)


def test_methods_start_from_the_same_function(any_config, batch):
    """Copies of tables that layers share start equal."""
    outputs = []
    for method in ("sweet", "early_exit"):
        _, models, params, _ = build(any_config, method=method)
        outputs.append(models[0].apply({"params": params[0]}, batch))
    for one, two in zip(*outputs, strict=True):
        np.testing.assert_array_equal(one.logits_BC, two.logits_BC)


def test_sweet_segment_0_learns_as_the_multi_model_member(further_config, batch):
    members, models, params, _ = build(further_config, method="sweet")
    mm_members, mm_models, mm_params, _ = build(further_config, method="multi_model")
    sweet = compute_gradients(models[0], members[0], params[0], batch)[0]
    alone = compute_gradients(mm_models[0], mm_members[0], mm_params[0], batch)[0]
    owned = by_segment(sweet)[0]
    assert owned.keys() == alone.keys()
    for path, value in alone.items():
        np.testing.assert_allclose(owned[path], value, rtol=1e-6, atol=1e-9)


def test_multi_model_members_are_disjoint_and_start_like_sweet(config):
    _, _, params, _ = build(config, method="sweet")
    _, mm_models, mm_params, _ = build(config, method="multi_model")
    shared = flatten_paths(params[0])
    for i, tree in enumerate(mm_params):
        for path, leaf in flatten_paths(tree).items():
            np.testing.assert_array_equal(leaf, shared[path])
        assert f"exits/exit_{i}/classifier/kernel" in flatten_paths(tree)
    joined = join_models(mm_models)
    variables = jax.eval_shape(joined.init, jax.random.key(0), Batch(*_zeros()))[
        "params"
    ]
    tops = {path.split("/")[0] for path in flatten_paths(variables)}
    assert tops == {"member_0", "member_1", "member_2"}


def _zeros():
    ids, row = np.zeros((1, 2), np.int32), np.zeros(1, np.int32)
    return ids, ids, ids, row, np.zeros(1, np.float32), row


def test_exits_answer_as_the_truncated_models_of_their_depth(config, batch):
    _, models, params, _ = build(config, method="sweet")
    _, mm_models, mm_params, _ = build(config, method="multi_model")
    whole: Any = models[0].apply({"params": params[0]}, batch)
    for i, (model, p) in enumerate(zip(mm_models, mm_params, strict=True)):
        alone: Any = model.apply({"params": p}, batch)
        np.testing.assert_allclose(
            whole[i].logits_BC, alone[0].logits_BC, rtol=1e-5, atol=1e-6
        )


def test_multi_model_set_answers_as_its_members(config, batch):
    _, models, params, _ = build(config, method="multi_model")
    joined = join_models(models)
    tree = {f"member_{i}": p for i, p in enumerate(params)}
    together: Any = joined.apply({"params": tree}, batch)
    for i, (model, p) in enumerate(zip(models, params, strict=True)):
        alone: Any = model.apply({"params": p}, batch)
        np.testing.assert_array_equal(together[i].logits_BC, alone[0].logits_BC)


def test_segment_calls_compose_to_the_whole_model(further_config, batch):
    for method in ("sweet", "multi_model"):
        _, models, params, _ = build(further_config, method=method)
        model = join_models(models)
        tree = (
            params[0]
            if len(params) == 1
            else {f"member_{i}": p for i, p in enumerate(params)}
        )
        whole: Any = model.apply({"params": tree}, batch)
        carry: Any = model.apply({"params": tree}, batch, method="start")
        for i in range(3):
            carry = model.apply({"params": tree}, i, carry, method="run_segment")
            out: Any = model.apply({"params": tree}, i, carry, method="exit_outputs")
            np.testing.assert_allclose(
                out.logits_BC, whole[i].logits_BC, rtol=1e-6, atol=1e-6
            )


LTE = {"exits": {"learn_to_exit": True}}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sweet", "early_exit"])
def test_learning_to_exit_passes_seams_as_the_exits_own_loss_does(
    config, batch, method
):
    members, models, params, _ = build(config, method=method, **LTE)
    gradients = compute_gradients(
        models[0], members[0], params[0], batch, compute_lte_losses
    )
    for j in range(3):
        classifier = f"exits/exit_{j}/classifier/"
        for i, group in by_segment(gradients[j]).items():
            learns = {path for path, g in group.items() if g.any()}
            # The answer is judged, not changed: nothing comes through the target.
            assert not any(path.startswith(classifier) for path in learns)
            if i == j:
                own = {f"exits/exit_{j}/lte/{leaf}" for leaf in ("kernel", "bias")}
                assert own | {f"exits/exit_{j}/pooler/kernel"} <= learns
            # Exactly zero elsewhere under sweet.
            reached = i == j or (method == "early_exit" and i < j)
            assert any(p.startswith("encoder/") for p in learns) == reached, (i, j)
            assert reached or not learns, (i, j)


@pytest.mark.slow
def test_multi_model_member_learns_to_exit_as_sweets_segment_0(config, batch):
    (member,), (model,), (params,), _ = build(config, method="sweet", **LTE)
    mm_members, mm_models, mm_params, _ = build(config, method="multi_model", **LTE)
    loss = compute_lte_losses
    sweet = by_segment(compute_gradients(model, member, params, batch, loss)[0])[0]
    (alone,) = compute_gradients(mm_models[0], mm_members[0], mm_params[0], batch, loss)
    assert sweet.keys() == alone.keys() >= {"exits/exit_0/lte/kernel"}
    for path, value in alone.items():
        np.testing.assert_allclose(sweet[path], value, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["sweet", pytest.param("multi_model", marks=pytest.mark.slow)]
)
def test_heads_change_neither_the_other_weights_nor_the_answers(config, batch, method):
    runs = []
    for fields in ({}, LTE):
        _, models, params, _ = build(config, method=method, **fields)
        model, tree = models[-1], params[-1]
        outputs: Any = model.apply(
            {"params": tree}, batch, train=True, rngs={"dropout": jax.random.key(0)}
        )
        runs.append((flatten_paths(tree), outputs))
    (plain, outputs), (tree, more) = runs
    added = tree.keys() - plain.keys()
    numbers = (0, 1, 2) if method == "sweet" else (2,)
    assert added == {
        f"exits/exit_{i}/lte/{leaf}" for i in numbers for leaf in ("kernel", "bias")
    }
    for path, leaf in plain.items():
        np.testing.assert_array_equal(tree[path], leaf)
    for one, two in zip(outputs, more, strict=True):
        np.testing.assert_array_equal(one.logits_BC, two.logits_BC)
        assert one.lte_B is None
        assert two.lte_B.shape == batch.labels.shape
        assert ((two.lte_B > 0) & (two.lte_B < 1)).all()


def test_faithful_release_shares_one_pooler_among_exits(config, batch):
    members, models, params, _ = build(config, method="sweet", faithful_release=True)
    flat = flatten_paths(params[0])
    assert [p for p in flat if "pooler/kernel" in p] == ["exits/pooler/kernel"]
    for gradient in compute_gradients(models[0], members[0], params[0], batch):
        # The release's leak: every exit's loss reaches the one pooler.
        assert gradient["exits/pooler/kernel"].any()


@pytest.mark.parametrize("method", ["sweet", "multi_model"])
def test_a_faithful_deberta_has_the_released_pooler(batch, method):
    """Its ContextPooler: GELU of a dense map of the first token's state."""
    config = parse_config(TINY_CONFIGS["deberta"])
    _, models, params, _ = build(config, method=method, faithful_release=True)
    assert all(model.pooler_activation == "gelu" for model in models)
    tree, model = params[-1], models[-1]
    outputs: Any = model.apply({"params": tree}, batch)
    carry: Any = model.encoder.apply({"params": tree["encoder"]}, batch)
    flat = jax.tree.map(np.asarray, flatten_paths(tree))
    assert [p for p in flat if "pooler/kernel" in p] == ["exits/pooler/kernel"]
    first = np.asarray(carry["x_BLD"])[:, 0]
    x = first @ flat["exits/pooler/kernel"] + flat["exits/pooler/bias"]
    path = "exits/exit_2/classifier"
    expected = (x * special.ndtr(x)) @ flat[f"{path}/kernel"] + flat[f"{path}/bias"]
    np.testing.assert_allclose(outputs[-1].logits_BC, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_all_exits_train_the_one_table_of_a_faithful_deberta(batch):
    """The release's second leak: each segment reads the table anew."""
    config = parse_config(TINY_CONFIGS["deberta"])
    members, models, params, _ = build(config, method="sweet", faithful_release=True)
    gradients = compute_gradients(models[0], members[0], params[0], batch)
    joint, *_ = build(config, method="early_exit", faithful_release=True)
    through = compute_gradients(models[0], joint[0], params[0], batch)
    table = "encoder/shared_0/distance/embedding"
    assert [p for p in gradients[0] if "/shared_" in p] == [table]
    for j, gradient in enumerate(gradients):
        assert gradient[table].any()
        # Behind the seam, nothing else of earlier segments learns from exit j.
        assert gradient["encoder/layer_0/attention/output/kernel"].any() == (j == 0)
    assert (through[2][table] != gradients[2][table]).any()


def test_seam_passes_everything_that_is_shared():
    carry = {
        "x_BLD": jnp.ones((1, 2, 3)),
        "table": jnp.ones(4),
        "mask_BL": jnp.ones(2, int),
    }

    def total(c: dict[str, jax.Array]) -> jax.Array:
        stopped = scale_seam({**c, "mask_BL": carry["mask_BL"]}, 0.0)
        return sum(v.sum() for v in stopped.values())  # type: ignore[return-value]

    floats = {name: carry[name] for name in ("x_BLD", "table")}
    gradient = jax.grad(total)(floats)
    assert not any(np.asarray(g).any() for g in gradient.values())


def test_a_row_without_tokens_gives_finite_outputs_and_gradients(config, batch):
    members, models, params, _ = build(config, method="early_exit")
    empty = batch._replace(mask=np.zeros_like(batch.mask))
    for gradient in compute_gradients(models[0], members[0], params[0], empty):
        assert all(np.isfinite(g).all() for g in gradient.values())


def test_packed_texts_have_the_answers_that_they_have_alone(any_config, rng):
    config = any_config
    if any_config.family == "deberta-v2":
        config = dataclasses.replace(config, conv_kernel_size=0)
    model = make_packable(config)
    packed = pack_model(model)
    assert packed is not None
    params = jax.jit(model.init)(jax.random.key(0), make_example_batch())["params"]
    # Rows of 40 are longer than the 32 positions, and longer than local windows.
    lengths_N = rng.integers(2, 30, 12)
    alone, rows = make_texts(lengths_N, rng)
    packing = pack_texts(lengths_N, (40,))
    batch = make_packed_batch(rows, np.arange(12), packing, len(packing.widths) + 1, 0)
    assert len(packing.widths) < 8
    for one, several in zip(
        jax.jit(model.apply)({"params": params}, alone),
        jax.jit(packed.apply)({"params": params}, batch),
        strict=True,
    ):
        logits_NC = np.asarray(several.logits_BC)[packing.find_answers(40)]
        np.testing.assert_allclose(logits_NC, one.logits_BC, rtol=0, atol=1e-5)
        assert np.isfinite(several.logits_BC).all()


def test_a_text_of_a_packed_row_reads_no_other(any_config, rng):
    """What another text of its row says makes no difference, to the last bit."""
    config = any_config
    if any_config.family == "deberta-v2":
        config = dataclasses.replace(config, conv_kernel_size=0)
    packed = pack_model(make_packable(config))
    assert packed is not None
    params = jax.jit(packed.init)(jax.random.key(0), make_example_batch())["params"]
    _, rows = make_texts(np.array([9, 8]), rng)
    packing = pack_texts(rows.lengths, (24,))
    batch = make_packed_batch(rows, np.arange(2), packing, 1, 0)
    other = batch._replace(token_ids=batch.token_ids.copy())
    other.token_ids[0, 9:17] = 5
    compute = jax.jit(lambda batch: packed.apply({"params": params}, batch)[-1])
    before, after = (np.asarray(compute(b).logits_BC) for b in (batch, other))
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[1] != after[1]).any()


def test_what_cannot_be_packed_has_no_packed_model():
    """A convolution reads other texts; replaced attention may not read the mask."""
    convolved = parse_config(TINY_CONFIGS["deberta-v2"])
    model = make_packable(convolved)
    assert pack_model(model) is None
    assert pack_model(join_models(split_model(model, [[0], [1]], False))) is None
    model = make_packable(parse_config(TINY_CONFIGS["bert"]))
    replaced = model.clone(
        encoder=model.encoder.clone(attention_fns=(compute_masked_softmax,) * 2)
    )
    assert pack_model(replaced) is None
    packed = pack_model(model)
    assert packed is not None
    assert pack_model(packed) is None


def make_packable(config: Any) -> MultiExitClassifier:
    """Returns two layers with an exit after each."""
    return MultiExitClassifier(
        encoder=make_encoder(config, 2, jnp.float32),
        exit_layers=(0, 1),
        exit_numbers=(0, 1),
        num_classes=3,
        features=config.hidden_size,
        settings=ExitSettings(pooling="mean", dropout=0.1),
        init_scale=0.5,
    )


def make_texts(lengths_N: np.ndarray, rng: Any) -> tuple[Batch, Tokenized]:
    """Returns random texts, as one text a row and as tokens."""
    count = len(lengths_N)
    offsets = np.cumsum([0, *lengths_N])
    rows = Tokenized(
        token_ids=rng.integers(4, 60, offsets[-1]).astype(np.int32),
        type_ids=np.zeros(offsets[-1], np.int32),
        offsets=offsets,
        labels=np.zeros(count, np.int32),
        row_ids=np.arange(count),
        truncated_rows=0,
    )
    plan = BatchPlan(int(lengths_N.max()), np.arange(count))
    return make_batch(rows, plan, count, 0), rows
