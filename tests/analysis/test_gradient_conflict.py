"""Gradient conflict: products of the exits' gradients, and what follows from them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_configs import TINY_CONFIGS
from tiny_models import make_padded_batch

from sweet_jax.analysis.gradient_conflict import (
    Conflict,
    Products,
    collect_products,
    make_add_batch,
    make_zero_sums,
    summarize,
)
from sweet_jax.analysis.parameter_groups import Group, make_groups, make_parts
from sweet_jax.arrays import Batch, Params
from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.models.init import compute_shapes, make_example_batch
from sweet_jax.models.multi_exit import MultiExitClassifier
from sweet_jax.models.shared_tables import compute_table_starts
from sweet_jax.settings.fields import ExitSettings
from sweet_jax.training.losses import compute_exit_losses
from sweet_jax.training.objectives import Objective
from sweet_jax.trees import flatten_paths, unflatten_paths

LAYERS = (0, 1, 2)
# Dropout in the exits alone: of that in the layers, the programs are twice as large.
TINY_BERT = {
    **TINY_CONFIGS["bert"],
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
JOINT = Objective((1.0, 1.0), (1.0, 1.0, 1.0))
SWEET = Objective((0.0, 0.0), (1.0, 1.0, 1.0))


def make_model(
    attributes: dict[str, Any],
    layers: tuple[int, ...] = LAYERS,
    separate_tables: bool = False,
    shared_pooler: bool = False,
    dropout: float = 0.1,
) -> MultiExitClassifier:
    config = parse_config(attributes)
    starts = compute_table_starts(layers) if separate_tables else (0,)
    encoder = make_encoder(config, layers[-1] + 1, jnp.float32)
    return MultiExitClassifier(
        encoder=encoder.clone(table_starts=starts),
        exit_layers=layers,
        exit_numbers=tuple(range(len(layers))),
        num_classes=3,
        features=config.hidden_size,
        settings=ExitSettings(pooling="mean", dropout=dropout),
        shared_pooler=shared_pooler,
    )


def make_params(model: MultiExitClassifier) -> Params:
    """Returns every parameter at random, biases and norms included."""
    rng = np.random.default_rng(1)
    shapes = flatten_paths(compute_shapes(model))
    return unflatten_paths(
        {
            path: rng.normal(path.endswith("scale"), 0.3, leaf.shape).astype(np.float32)
            for path, leaf in shapes.items()
        }
    )


BATCHES = [(make_padded_batch(i), jax.random.key(7 + i)) for i in range(2)]


def measure(
    model: MultiExitClassifier,
    params: Params,
    objective: Objective,
    trainable: tuple[str, ...] = (".*",),
    jit: Any = None,
    class_weights: tuple[float, ...] | None = None,
) -> tuple[Products, tuple[Group, ...]]:
    """Measures op by op unless told otherwise: small kernels are compiled once."""
    parts = make_parts(flatten_paths(params), model.exit_layers)
    add_batch = make_add_batch(model, objective, parts, class_weights)
    products = collect_products(
        add_batch if jit is None else jit(add_batch, donate_argnums=0),
        make_zero_sums(params, parts, len(objective.exit_scale), trainable),
        params,
        BATCHES,
        parts,
    )
    return products, make_groups(parts)


@pytest.fixture(scope="module")
def bert() -> tuple[MultiExitClassifier, Params]:
    model = make_model(TINY_BERT)
    return model, make_params(model)


@pytest.fixture(scope="module")
def joint(bert) -> dict[str, Conflict]:
    products, groups = measure(*bert, JOINT, jit=jax.jit)
    return {group.name: summarize(products, group) for group in groups}


def compute_slowly(
    model: MultiExitClassifier, params: Params, objective: Objective
) -> list[list[dict[str, np.ndarray]]]:
    """Returns the flat gradient of each exit's mean loss on each batch, by jax.grad."""

    def differentiate(exit_number: int, params: Params, batch: Batch, rng: Any) -> Any:
        def compute_loss(params: Params) -> jax.Array:
            outputs: Any = model.apply(
                {"params": params},
                batch,
                train=True,
                seam_scale=objective.seam_scale,
                rngs={"dropout": rng},
            )
            sums = compute_exit_losses(outputs, batch.labels, batch.weights)
            return jnp.asarray(sums[exit_number] / 5)  # real rows

        return jax.grad(compute_loss)(params)

    return [
        [
            jax.tree.map(
                lambda g: np.asarray(g, np.float64),
                flatten_paths(differentiate(j, params, batch, rng)),
            )
            for j in range(len(model.exit_layers))
        ]
        for batch, rng in BATCHES
    ]


def join(gradient: dict[str, np.ndarray], prefixes: tuple[str, ...]) -> np.ndarray:
    return np.concatenate(
        [g.ravel() for path, g in gradient.items() if path.startswith(prefixes)]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "prefixes"),
    [
        ("layer_0/attention/query", ("encoder/layer_0/attention/query/",)),
        ("layer_2/feed_forward/down", ("encoder/layer_2/feed_forward/down/",)),
        (
            "layer_1/norms",
            ("encoder/layer_1/attention/norm/", "encoder/layer_1/feed_forward/norm/"),
        ),
        ("embeddings", ("encoder/embeddings/",)),
        ("layer_0", ("encoder/layer_0/",)),
        ("segment_0", ("encoder/embeddings/", "encoder/layer_0/")),
        ("segment_1", ("encoder/layer_1/",)),
    ],
)
def test_equals_one_gradient_per_exit(slow_gradients, joint, name, prefixes):
    found = joint[name]
    vectors = [[join(g, prefixes) for g in batch] for batch in slow_gradients]
    first = found.exits[0]
    assert found.pairs == tuple(
        (i, j) for i in range(first, 3) for j in range(i + 1, 3)
    )
    for exit_number in range(first):  # what does not reach is really 0
        assert not any(batch[exit_number].any() for batch in vectors)
    norms = np.array([[np.linalg.norm(v) for v in batch] for batch in vectors])
    means = np.mean(vectors, axis=0)
    assert found.norm == pytest.approx(norms.mean(axis=0)[first:], rel=1e-5)
    assert found.norm_of_mean == pytest.approx(
        np.linalg.norm(means, axis=1)[first:], rel=1e-5
    )
    for position, (i, j) in enumerate(found.pairs):
        cosines = [v[i] @ v[j] for v in vectors] / (norms[:, i] * norms[:, j])
        error = cosines.std(ddof=1) / np.sqrt(len(cosines))
        ratio = np.exp(np.log(norms[:, j] / norms[:, i]).mean())
        of_mean = means[i] @ means[j] / np.linalg.norm(means[i])
        of_mean /= np.linalg.norm(means[j])
        assert found.cosine[position] == pytest.approx(cosines.mean(), abs=1e-5)
        assert found.cosine_error[position] == pytest.approx(error, abs=1e-5)
        assert found.norm_ratio[position] == pytest.approx(ratio, rel=1e-5)
        assert found.cosine_of_mean[position] == pytest.approx(of_mean, abs=1e-5)
        assert abs(cosines.mean()) > 1e-3  # there is something to miss


@pytest.fixture(scope="module")
def slow_gradients(bert) -> list[list[dict[str, np.ndarray]]]:
    return compute_slowly(*bert, JOINT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "attributes", [TINY_BERT, TINY_CONFIGS["deberta-v2"]], ids=["bert", "deberta-v2"]
)
def test_sweet_has_no_cross_terms(attributes):
    """A DeBERTa's table of distances is each segment's own."""
    model = make_model(attributes, separate_tables=True)
    products, groups = measure(model, make_params(model), SWEET)
    for group in groups:
        found = summarize(products, group)
        assert found.norm[0] is not None
        assert found.norm[0] > 0, group
        assert all(norm == 0.0 for norm in found.norm[1:]), group
        for values in (found.cosine, found.cosine_of_mean, found.norm_ratio):
            assert values == (None,) * len(found.pairs)


@pytest.mark.slow
def test_class_weights_scale_gradients_as_in_training(bert, joint):
    products, groups = measure(*bert, JOINT, jit=jax.jit, class_weights=(2.0, 2.0))
    for group in groups:
        found, plain = summarize(products, group), joint[group.name]
        assert found.norm == pytest.approx([2 * n for n in plain.norm], rel=1e-5)


@pytest.mark.slow
def test_weights_of_exits_change_lengths_and_no_angle(bert, joint):
    """Frozen parameters, and an exit without weight, point nowhere."""
    objective = Objective((1.0, 1.0), (0.0, 1.0, 4.0))
    products, groups = measure(*bert, objective, ("(?!encoder/layer_1/).*",))
    for group in groups:
        found, whole = summarize(products, group), joint[group.name]
        pairs = {pair: k for k, pair in enumerate(found.pairs)}
        if group.name.startswith("layer_1"):
            assert set(found.norm) == {0.0}
            assert found.cosine == (None,) * len(pairs)
            continue
        if group.segment == 1 or (1, 2) not in pairs:
            continue
        k = pairs[1, 2]
        assert found.cosine[k] == pytest.approx(whole.cosine[k], abs=1e-5)
        assert found.norm_ratio[k] == pytest.approx(4 * whole.norm_ratio[k], rel=1e-5)
        assert (found.norm[0], found.cosine[pairs[0, 1]]) == (0.0, None)


@pytest.mark.slow
def test_identical_exits_agree():
    """A pre-norm layer whose last maps are 0 passes its input on: the exits are one."""
    model = make_model(TINY_CONFIGS["modernbert"], layers=(0, 1), dropout=0.0)
    flat = flatten_paths(make_params(model))
    silent = ("attention/output/kernel", "feed_forward/down/kernel")
    for path in flat:
        if path.startswith("encoder/layer_1/"):
            flat[path] = flat[path] * (0 if path.endswith(silent) else 1)
        if path.startswith("exits/exit_1/"):
            flat[path] = flat[path.replace("exit_1", "exit_0")]
    products, groups = measure(
        model, unflatten_paths(flat), Objective((1.0,), (1.0, 1.0))
    )
    for group in groups:
        if group.segment == 0:
            found = summarize(products, group)
            assert found.pairs == ((0, 1),)
            for value in (*found.cosine, *found.cosine_of_mean, *found.norm_ratio):
                assert value == pytest.approx(1, abs=1e-6), group.name


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(1e-3, 1e3))
def test_groups_are_concatenations_and_scales_leave_angles(seed, num_batches, scale):
    rng = np.random.default_rng(seed)
    pieces = [rng.normal(size=(num_batches, 3, size)) for size in (2, 5)]
    group = Group("both", "place", 1, (0, 1))

    def summarize_pieces(pieces: list[np.ndarray], group: Group) -> Conflict:
        batches = np.stack([np.einsum("nid,njd->nij", p, p) for p in pieces], axis=1)
        means = [p.mean(axis=0) for p in pieces]
        return summarize(Products(batches, np.stack([m @ m.T for m in means])), group)

    found = summarize_pieces(pieces, group)
    assert (found.exits, found.pairs) == ((1, 2), ((1, 2),))
    whole = summarize_pieces(
        [np.concatenate(pieces, axis=2)], Group("one", "part", 1, (0,))
    )
    scaled = summarize_pieces(
        [p * np.array([1, 1, scale])[:, None] for p in pieces], group
    )
    for name in ("cosine", "cosine_of_mean", "norm", "norm_of_mean", "norm_ratio"):
        one, two = getattr(found, name), getattr(whole, name)
        assert one == pytest.approx(two, rel=1e-9), name
    assert scaled.cosine == pytest.approx(found.cosine, rel=1e-9)
    assert scaled.norm_ratio[0] == pytest.approx(scale * found.norm_ratio[0], rel=1e-9)
    assert (found.cosine_error[0] is None) == (num_batches == 1)


@pytest.mark.parametrize("family", TINY_CONFIGS)
def test_every_shared_parameter_is_in_one_part(family):
    model = make_model(TINY_CONFIGS[family], shared_pooler=True)
    paths = list(flatten_paths(compute_shapes(model)))
    parts = make_parts(paths, LAYERS)
    owned = [path for part in parts for path in part.paths]
    assert len(owned) == len(set(owned))
    assert set(paths) - set(owned) == {p for p in paths if p.startswith("exits/exit_")}
    groups = make_groups(parts)
    for level in ("part", "place"):
        members = [i for g in groups if g.level == level for i in g.members]
        assert sorted(members) == list(range(len(parts)))
    segments = {g.name: g.members for g in groups if g.level == "segment"}
    assert list(segments) == ["segment_0", "segment_1", "segment_2"]
    outside = set(range(len(parts))) - {i for m in segments.values() for i in m}
    assert [parts[i].name for i in outside] == ["pooler"]


def test_parts_are_named_by_their_modules_and_layers_count():
    parts = make_parts(flatten_paths(compute_shapes(make_model(TINY_BERT))), LAYERS)
    assert [part.name for part in parts if part.place == "layer_2"] == [
        f"layer_2/{kind}"
        for kind in (
            "attention/key", "norms", "attention/output", "attention/query",
            "attention/value", "feed_forward/down", "feed_forward/up",
        )
    ]  # fmt: skip
    deep = [f"encoder/layer_{i}/feed_forward/up/kernel" for i in (10, 2, 0)]
    places = [part.place for part in make_parts(deep, (0, 11))]
    assert places == ["layer_0", "layer_2", "layer_10"]


@pytest.mark.slow
def test_costs_a_forward_pass_and_a_backward_pass_to_each_exit():
    """By XLA's count, before it optimises; with widths at which products dominate."""
    wide = {**TINY_BERT, "hidden_size": 128, "intermediate_size": 512}
    model = make_model(wide, layers=(0, 1, 3))
    params = compute_shapes(model)
    parts = make_parts(flatten_paths(params), model.exit_layers)
    batch, rng = make_example_batch(16, 32), jax.random.key(0)

    def compute_last_loss(params: Params) -> jax.Array:
        outputs: Any = model.apply(
            {"params": params}, batch, train=True, rngs={"dropout": rng}
        )
        sums = compute_exit_losses(outputs, batch.labels, batch.weights)
        return jnp.asarray(sums[-1])

    def count(fn: Any, *args: Any) -> float:
        return jax.jit(fn).lower(*args).cost_analysis()["flops"]

    forward = count(compute_last_loss, params)
    backward = count(jax.grad(compute_last_loss), params) - forward
    sums = jax.eval_shape(lambda p: make_zero_sums(p, parts, 3, (".*",)), params)
    measured = count(make_add_batch(model, JOINT, parts), sums, params, batch, rng)
    # To exits after 1, 2 and 4 of 4 layers.
    assert measured < 1.05 * (forward + backward * (1 + 2 + 4) / 4)
    assert backward == pytest.approx(2 * forward, rel=0.1)
