"""The training step: optimiser groups, clipping, sharding, accumulation, memory."""

import dataclasses
import functools
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import softmax

from sweet_jax import devices
from sweet_jax.arrays import Batch, Params
from sweet_jax.data.tokenize import Tokenized
from sweet_jax.devices import make_mesh, replicate, shard_batch
from sweet_jax.evaluation.collect import Collector
from sweet_jax.huggingface.config import load_config, make_encoder
from sweet_jax.models.init import compute_shapes, init_params
from sweet_jax.models.multi_exit import MultiExitClassifier, find_segment, split_model
from sweet_jax.settings.fields import ExitSettings, OptimSettings
from sweet_jax.settings.resolve import from_config_dict
from sweet_jax.training import loop
from sweet_jax.training.loop import NonFiniteError, measure_step, plan_phases
from sweet_jax.training.losses import compute_cross_entropy_sum
from sweet_jax.training.methods import METHODS, make_members, separates_segments
from sweet_jax.training.metrics_log import MetricsLog
from sweet_jax.training.objectives import Objective, Phase
from sweet_jax.training.optimizer import make_optimizer, make_schedule
from sweet_jax.training.state import StepMetrics, TrainState, make_train_step
from sweet_jax.trees import flatten_paths, make_mask, unflatten_paths

LAYERS = (0, 1)
JOINT = Objective((1.0,), (1.0, 1.0))
SETTINGS = OptimSettings(
    encoder_learning_rate=0.01, exit_learning_rate=0.1, schedule="constant",
    warmup_percent=0.0, weight_decay=0.01, epsilon_mode="after_correction",
    clip_scope="global",
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_encoder) -> MultiExitClassifier:
    """Two exits, no dropout."""
    config = dataclasses.replace(
        load_config(tiny_encoder), hidden_dropout=0.0, attention_dropout=0.0
    )
    return MultiExitClassifier(
        encoder=make_encoder(config, 2, jnp.float32),
        exit_layers=LAYERS,
        exit_numbers=(0, 1),
        num_classes=2,
        features=config.hidden_size,
        settings=ExitSettings(pooling="mean", dropout=0.0),
    )


@pytest.fixture(scope="module")
def params(model) -> Params:
    return make_params(model)


@pytest.fixture(scope="module")
def lte_model(model) -> MultiExitClassifier:
    """The same with learning-to-exit heads."""
    settings = ExitSettings(pooling="mean", dropout=0.0, learn_to_exit=True)
    return model.clone(settings=settings)


@pytest.fixture(scope="module")
def lte_params(lte_model) -> Params:
    return make_params(lte_model)


def make_params(model: MultiExitClassifier) -> Params:
    encoder = model.encoder.clone(parent=None)
    zeros = np.zeros((1, 2), np.int32)
    batch = Batch(
        zeros, zeros, zeros, zeros[0, :1], np.zeros(1, np.float32), zeros[0, :1]
    )
    loaded = encoder.init(jax.random.key(0), batch)["params"]
    return jax.device_get(init_params(model, jax.random.key(1), loaded, None))


@pytest.fixture(scope="module")
def batch() -> Batch:
    rng = np.random.default_rng(0)
    ids = rng.integers(4, 30, (8, 6)).astype(np.int32)
    return Batch(
        ids,
        np.zeros_like(ids),
        np.ones_like(ids),
        (ids[:, 0] % 2).astype(np.int32),
        np.array([1] * 7 + [0], np.float32),
        np.arange(8, dtype=np.int32),
    )


def run_steps(
    model: Any,
    params: Params,
    batch: Batch,
    steps: int,
    rows: int = 8,
    objective: Objective = JOINT,
    **fields: Any,
) -> tuple[Params, list[np.ndarray]]:
    """Returns parameters, and losses per exit of some steps on one batch.

    Where exits learn to exit, their squared errors follow the cross-entropies.
    """
    optimizer = make_optimizer(
        SETTINGS,
        params,
        (".*",),
        functools.partial(find_segment, exit_layers=LAYERS),
        9,
    )
    step = jax.jit(make_train_step(model, objective, optimizer, **fields))
    mesh = make_mesh(rows)
    state = replicate(
        TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params)), mesh
    )
    key, losses = replicate(jax.random.key(3), mesh), []
    for _ in range(steps):
        state, metrics = step(state, shard_batch(batch, mesh), key)
        sums = [s for s in (metrics.loss_sum_E, metrics.lte_sum_E) if s is not None]
        losses.append(np.concatenate(sums))
    return jax.device_get(state.params), losses


def assert_trees_close(one: Params, two: Params, steps: int) -> None:
    """Compares parameters to a thousandth of the distance that they can have moved.

    Adam divides by the gradient's own size, so the rounding noise of a tiny gradient
    shows as a part of a step, whatever the size of the parameter.
    """
    other = flatten_paths(two)
    for path, leaf in flatten_paths(one).items():
        # Softmax does not see key biases: their gradient is nothing but noise.
        if path.endswith("attention/key/bias"):
            continue
        rate = SETTINGS.exit_learning_rate
        if path.startswith("encoder/"):
            rate = SETTINGS.encoder_learning_rate
        np.testing.assert_allclose(
            leaf, other[path], rtol=0, atol=1e-3 * rate * steps, err_msg=path
        )


@pytest.mark.slow
def test_several_devices_and_accumulation_equal_one_device(
    lte_model, lte_params, batch, monkeypatch
):
    model, params = lte_model, lte_params
    assert len(jax.devices()) == 4, "conftest simulates four devices"
    sharded, sharded_losses = run_steps(model, params, batch, 3)
    parts, parts_losses = run_steps(model, params, batch, 3, rows=4, accumulate_steps=2)
    one = jax.devices()[:1]
    monkeypatch.setattr(devices.jax, "devices", lambda: one)
    single, single_losses = run_steps(model, params, batch, 3)
    for losses in (sharded_losses, parts_losses):
        np.testing.assert_allclose(losses, single_losses, rtol=1e-4)
    assert_trees_close(sharded, single, steps=3)
    assert_trees_close(parts, single, steps=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "scale"),
    [
        ("sweet", 0.0),
        pytest.param("sweet", 0.3, marks=pytest.mark.slow),
        pytest.param("early_exit", 0.0, marks=pytest.mark.slow),
        pytest.param("multi_model", 0.0, marks=pytest.mark.slow),
    ],
)
def test_each_method_overfits_eight_examples(model, params, batch, method, scale):
    settings = from_config_dict({"method": method, "boundary_gradient_scale": scale})
    members = make_members(settings, len(LAYERS))
    models = split_model(
        model, [member.exits for member in members], separates_segments(members)
    )
    for member, part in zip(members, models, strict=True):
        own = flatten_paths(compute_shapes(part))
        tree = unflatten_paths({p: flatten_paths(params)[p] for p in own})
        (objective,) = member.phases[0].objectives
        _, losses = run_steps(part, tree, batch, 60, objective=objective)
        assert (losses[-1] < 0.1 * losses[0]).all(), (member.name, losses[-1])


@pytest.mark.slow
def test_exits_learn_that_they_are_right_and_one_without_weight_learns_nothing(
    lte_model, lte_params, batch
):
    # SWEET's seam: exit 1 learns nothing through exit 0 either.
    objective = Objective((0.0,), (1.0, 0.0))
    trained, losses = run_steps(lte_model, lte_params, batch, 60, objective=objective)
    outputs: Any = lte_model.apply({"params": trained}, batch)
    real = batch.weights > 0
    assert (outputs[0].logits_BC.argmax(axis=1) == batch.labels)[real].all()
    assert (outputs[0].lte_B[real] > 0.95).all()
    # Logged in the order of cross-entropies, then squared errors.
    right_E = [(o.logits_BC.argmax(axis=1) == batch.labels)[real] for o in outputs]
    errors_E = [
        ((o.lte_B[real] - right) ** 2).sum()
        for o, right in zip(outputs, right_E, strict=True)
    ]
    assert losses[-1].shape == (4,)
    np.testing.assert_allclose(losses[-1][2:], errors_E, rtol=0.1, atol=1e-3)
    before = flatten_paths(lte_params["exits"]["exit_1"])
    # No gradient: what moves is the decay of kernels, by one factor per step.
    for path, leaf in flatten_paths(trained["exits"]["exit_1"]).items():
        decay = 1 - SETTINGS.exit_learning_rate * SETTINGS.weight_decay
        factor = decay**60 if path.endswith("kernel") else 1.0
        np.testing.assert_allclose(leaf, before[path] * factor, rtol=1e-4)


@pytest.mark.slow
def test_both_losses_count_once_by_the_exits_own_scale(lte_model, lte_params, batch):
    """A step of gradient descent moves the biases as the formulas say."""
    objective = Objective((0.0,), (1.0, 0.5))
    optimizer = optax.sgd(1.0)
    step = jax.jit(make_train_step(lte_model, objective, optimizer))
    state = TrainState(jnp.zeros((), jnp.int32), lte_params, optimizer.init(lte_params))
    moved, _ = step(state, batch, jax.random.key(0))
    outputs: Any = lte_model.apply({"params": lte_params}, batch)
    for i, scale in enumerate(objective.exit_scale):
        logits_BC, u_B = (np.asarray(part)[:7] for part in outputs[i])
        labels_B = batch.labels[:7]
        right_B = logits_BC.argmax(axis=1) == labels_B
        expected = {
            "lte": [(2 * (u_B - right_B) * u_B * (1 - u_B)).mean()],
            "classifier": (softmax(logits_BC, axis=1) - np.eye(2)[labels_B]).mean(0),
        }
        before, after = (p["exits"][f"exit_{i}"] for p in (lte_params, moved.params))
        for name, gradient in expected.items():
            moves = before[name]["bias"] - after[name]["bias"]
            np.testing.assert_allclose(
                moves, scale * np.asarray(gradient), rtol=1e-3, atol=1e-6
            )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_whole_phases(method):
    settings = from_config_dict({"method": method, "exits": {"layers": (0, 2, 5)}})
    for member in make_members(settings, 3):
        num_exits = len(member.exits)
        for phase in member.phases:
            # Each takes all of train.num_epochs.
            assert phase.steps_percent == 100
            for objective in phase.objectives:
                assert len(objective.exit_scale) == num_exits
                assert len(objective.seam_scale) == num_exits - 1
                if objective.state_scale is not None:
                    assert len(objective.state_scale) == num_exits


def test_phases_cover_all_steps_once():
    phases = [Phase((JOINT,), steps_percent=share) for share in (50.0, 50.0, 100.0)]
    spans = [(first, stop) for _, first, stop in plan_phases(tuple(phases), 7)]
    assert spans == [(0, 4), (4, 7), (7, 14)]


def test_clip_scope_segment_keeps_segments_apart(params):
    gradient = jax.tree.map(jnp.ones_like, params)
    huge = {**gradient, "exits": {**gradient["exits"]}}
    huge["exits"]["exit_1"] = jax.tree.map(
        lambda x: x * 1e6, gradient["exits"]["exit_1"]
    )

    def update(scope: str, tree: Params) -> dict[str, np.ndarray]:
        settings = dataclasses.replace(SETTINGS, clip_scope=scope)
        find = functools.partial(find_segment, exit_layers=LAYERS)
        from sweet_jax.training.optimizer import make_clipping

        clipping = make_clipping(settings, params, find)
        clipped, _ = clipping.update(tree, clipping.init(params), params)
        return flatten_paths(clipped)  # type: ignore[arg-type]

    path = "exits/exit_0/classifier/kernel"
    np.testing.assert_array_equal(
        update("segment", gradient)[path], update("segment", huge)[path]
    )
    assert np.abs(update("global", huge)[path]).max() < 1e-3
    norm = np.sqrt(
        sum(
            (np.asarray(g) ** 2).sum()
            for p, g in update("segment", huge).items()
            if find_segment(p, LAYERS) == 1
        )
    )
    assert norm == pytest.approx(1.0, rel=1e-4)


def test_frozen_parameters_keep_still_and_have_no_state(params):
    optimizer = make_optimizer(SETTINGS, params, ("exits/.*",), lambda path: 0, 3)
    state = optimizer.init(params)
    gradient = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(gradient, state, params)
    moves = {p: bool(np.any(u)) for p, u in flatten_paths(updates).items()}  # type: ignore[arg-type]
    learns = flatten_paths(make_mask(params, ("exits/.*",)))
    assert moves == learns
    state_size = sum(np.size(x) for x in jax.tree.leaves(state))
    exits_size = sum(np.size(x) for x in jax.tree.leaves(params["exits"]))
    assert state_size < 2 * exits_size + 20


def test_two_learning_rates_and_decay_of_kernels_only(params):
    settings = dataclasses.replace(SETTINGS, weight_decay=0.5, clip_norm=0.0)
    optimizer = make_optimizer(settings, params, (".*",), lambda path: 0, 3)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates = flatten_paths(optimizer.update(zero, optimizer.init(params), params)[0])  # type: ignore[arg-type]
    flat = flatten_paths(params)
    for path, rate in (
        ("encoder/layer_0/attention/query/kernel", 0.01),
        ("exits/exit_0/classifier/kernel", 0.1),
    ):
        np.testing.assert_allclose(updates[path], -rate * 0.5 * flat[path], rtol=1e-5)
    assert not np.any(updates["encoder/layer_0/attention/norm/scale"])


@pytest.mark.parametrize("kind", ["linear", "constant"])
def test_schedule_rises_then_falls_or_stays(kind):
    settings = OptimSettings(schedule=kind, warmup_percent=20.0)
    schedule = make_schedule(settings, 1.0, 10)
    rates = [float(schedule.compute_rate(jnp.int32(i))) for i in range(12)]
    after = np.linspace(1, 0, 9) if kind == "linear" else np.ones(9)
    np.testing.assert_allclose(rates, [0, 0.5, *after, after[-1]], atol=1e-6)
    no_rise = dataclasses.replace(settings, warmup_percent=0.0)
    assert float(make_schedule(no_rise, 1.0, 10).compute_rate(jnp.int32(0))) == 1


def step_old_adamw(
    params: dict[str, np.ndarray],
    gradients: dict[str, np.ndarray],
    state: dict[str, list[np.ndarray]],
    step: int,
    rate: float,
    decay: float,
) -> dict[str, np.ndarray]:
    """One step of transformers' AdamW of 4.21 as the Trainer runs it, in float64.

    Written from its formula: gradients clipped to a norm of 1 over all parameters, then
    p -= rate * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps), then p -= rate *
    decay * p for kernels. `step` counts from 1.
    """
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
    clip = min(1.0, 1.0 / (norm + 1e-6))
    rate_t = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    moved = {}
    for path, p in params.items():
        g = gradients[path].astype(np.float64) * clip
        m, v = state.setdefault(path, [np.zeros_like(p), np.zeros_like(p)])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        state[path] = [m, v]
        moved[path] = p - rate_t * m / (np.sqrt(v) + 1e-8)
        if decay and path.endswith("kernel"):
            moved[path] -= rate * decay * moved[path]
    return moved


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_faithful_steps_are_those_of_the_old_adamw(rng, decay):
    """Moves of 60 steps, to a thousandth: clip, schedule, rates, epsilon, decay."""
    settings = dataclasses.replace(
        from_config_dict({"faithful_release": True}).optim, weight_decay=decay
    )
    # Where gradients are about as small as epsilon it matters where that is added.
    sizes = {
        "encoder/layer_0/attention/query/kernel": 1e-8,
        "encoder/layer_1/attention/query/kernel": 1e-7,
        "encoder/layer_2/attention/query/bias": 1e-6,
        "exits/exit_0/classifier/kernel": 0.3,
    }
    start = {path: rng.normal(0, 0.02, (8, 4)) for path in sizes}
    directions = {path: rng.normal(size=(8, 4)) for path in sizes}
    params = unflatten_paths({p: jnp.float32(leaf) for p, leaf in start.items()})
    num_steps = 60
    optimizer = make_optimizer(settings, params, (".*",), lambda path: 0, num_steps)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    theirs, their_state = start, {}
    for step in range(num_steps):
        gradients = {
            path: np.float32(size * (directions[path] + rng.normal(size=(8, 4))))
            for path, size in sizes.items()
        }
        # As theirs moved so far: a step is compared, not a sum of rounding errors.
        params = unflatten_paths({p: jnp.float32(leaf) for p, leaf in theirs.items()})
        moves, state = update(unflatten_paths(gradients), state, params)
        rate = 5e-5 * (1 - step / num_steps)  # To 0, without a warm-up.
        moved = step_old_adamw(theirs, gradients, their_state, step + 1, rate, decay)
        for path, move in flatten_paths(moves).items():
            their_move = moved[path] - theirs[path]
            np.testing.assert_allclose(
                move, their_move, rtol=1e-3, atol=1e-3 * np.abs(their_move).mean()
            )
        theirs = moved


def test_epsilon_before_the_correction_holds_small_gradients_back(params):
    """By the formula: 1 / (1 + 31.6) against 1 / (1 + 1) at step 1."""
    gradient = jax.tree.map(lambda p: jnp.full_like(p, 1e-8), params)

    def move(mode: str) -> np.ndarray:
        settings = dataclasses.replace(SETTINGS, epsilon_mode=mode, weight_decay=0.0)
        optimizer = make_optimizer(settings, params, (".*",), lambda path: 0, 3)
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        return flatten_paths(updates)["encoder/layer_0/attention/query/kernel"]

    np.testing.assert_allclose(move("after_correction"), -0.01 / 2, rtol=1e-4)
    before = -0.01 / (1 + 0.001**-0.5)
    np.testing.assert_allclose(move("before_correction"), before, rtol=1e-4)


def test_other_rates_and_steps_run_the_same_program(model, params, batch):
    texts = []
    for rate, steps in ((0.1, 9), (0.3, 20)):
        settings = dataclasses.replace(SETTINGS, exit_learning_rate=rate)
        optimizer = make_optimizer(settings, params, (".*",), lambda path: 0, steps)
        step = jax.jit(make_train_step(model, JOINT, optimizer))
        state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
        texts.append(step.lower(state, batch, jax.random.key(0)).as_text())
    assert texts[0] == texts[1]


def test_filling_rows_add_exactly_nothing():
    logits = np.array([[1.0, 2.0], [np.nan, np.inf]], np.float32)
    labels = np.zeros(2, np.int32)
    weights = np.array([1, 0], np.float32)
    loss = compute_cross_entropy_sum(logits, labels, weights)
    alone = compute_cross_entropy_sum(logits[:1], labels[:1], weights[:1])
    assert float(loss) == float(alone)
    gradient = jax.grad(compute_cross_entropy_sum)(jnp.asarray(logits), labels, weights)
    assert not np.any(np.asarray(gradient)[1])


def test_bank_does_not_depend_on_batch_size_or_padding(model, params):
    rng = np.random.default_rng(2)
    lengths = rng.integers(1, 14, 23)
    ids = rng.integers(4, 30, lengths.sum()).astype(np.int32)
    rows = Tokenized(
        ids,
        np.zeros_like(ids),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.arange(23, dtype=np.int32) % 2,
        np.arange(23, dtype=np.int64),
        0,
    )
    banks = [
        Collector(model, size, buckets, pad_id=0).collect(params, rows)
        for size, buckets in ((4, (16,)), (7, (8, 14)), (23, (20,)))
    ]
    for bank in banks[1:]:
        np.testing.assert_allclose(bank.logits, banks[0].logits, atol=1e-5)
        np.testing.assert_array_equal(bank.row_ids, np.arange(23))


def test_a_bank_with_dropout_is_a_function_of_its_key(tiny_encoder, params):
    config = load_config(tiny_encoder)
    assert config.hidden_dropout > 0
    model = MultiExitClassifier(
        encoder=make_encoder(config, 2, jnp.float32),
        exit_layers=LAYERS,
        exit_numbers=(0, 1),
        num_classes=2,
        features=config.hidden_size,
        settings=ExitSettings(pooling="mean", dropout=0.1),
    )
    rows = Tokenized(
        np.full(40, 5, np.int32),
        np.zeros(40, np.int32),
        np.arange(0, 41, 4).astype(np.int64),
        np.zeros(10, np.int32),
        np.arange(10, dtype=np.int64),
        0,
    )

    def collect(seed: int | None) -> np.ndarray:
        key = None if seed is None else jax.random.key(seed)
        return Collector(model, 4, (8,), 0, key).collect(params, rows).logits

    np.testing.assert_array_equal(collect(1), collect(1))
    assert np.abs(collect(1) - collect(2)).max() > 1e-4
    # All rows are one sentence: masks differ within a batch and from batch to batch.
    assert len(np.unique(collect(1)[:, 1, 0])) == 10
    np.testing.assert_allclose(np.ptp(collect(None), axis=0), 0, atol=1e-6)


@pytest.mark.slow
def test_sweet_needs_less_temporary_memory_than_early_exit(model):
    """Stacking the exits' losses would tie their backward passes together."""
    wide = dataclasses.replace(
        model.encoder.config, hidden_size=64, intermediate_size=256
    )
    big = MultiExitClassifier(
        encoder=make_encoder(wide, 3, jnp.float32),
        exit_layers=(0, 1, 2),
        exit_numbers=(0, 1, 2),
        num_classes=2,
        features=64,
        settings=ExitSettings(pooling="mean", dropout=0.1),
    )
    sizes = {}
    for method in ("sweet", "early_exit"):
        settings = from_config_dict({"method": method})
        phase = make_members(settings, 3)[0].phases[0]
        sizes[method] = measure_step(big, phase, settings, 32).temporary_bytes
    assert sizes["sweet"] < 0.75 * sizes["early_exit"], sizes


def test_a_pause_is_no_training_time(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, "", first_step=0, num_steps=2, quiet=True) as log:
        log.write_cost(0, {"phase": 0})
        with log.pause():
            time.sleep(0.5)
        log.write(1, {"loss": [0.7], "learning_rate": 0.1}, num_examples=8.0)
    row = json.loads(path.read_text().splitlines()[1])
    assert row["seconds"] < 0.4
    assert row["examples_per_second"] > 8 / 0.4


@pytest.mark.parametrize(
    ("step", "changes", "message"),
    [
        (1, {"loss_sum_E": [1.0, np.nan]}, "loss of exit 1 is nan at step 1, before"),
        (2, {"loss_sum_E": [np.inf, 1.0]}, "diverged: the loss of exit 0 is inf at st"),
        (
            2,
            {"gradient_norm": np.nan},
            "the gradient's norm is nan at step 2",
        ),
        (2, {"lte_sum_E": [1.0, -np.inf]}, "diverged: the loss of exit 1 is -inf"),
    ],
)
def test_what_is_no_number_is_named(step, changes, message):
    numbers = {"loss_sum_E": [1.0, 1.0], "weight": 4.0, "gradient_norm": 1.0}
    metrics = StepMetrics(
        **{n: np.array(x, np.float32) for n, x in (numbers | changes).items()}  # type: ignore[arg-type]
    )
    with pytest.raises(NonFiniteError, match=message) as error:
        loop._read_metrics(step, metrics)
    assert ("learning_rate" in str(error.value)) == (step > 1)


def test_weights_that_are_no_numbers_are_never_trained_or_kept(params):
    flat = {path: np.array(leaf) for path, leaf in flatten_paths(params).items()}
    path = "encoder/layer_1/attention/query/kernel"
    flat[path][0, 0] = np.nan
    broken = unflatten_paths(flat)
    with pytest.raises(NonFiniteError, match=f"before the first step .first in {path}"):
        loop._check_start(broken)
    zero = np.zeros((), np.int32)
    for state, message in (
        (TrainState(zero, broken, ()), f"in {path} after step 5"),
        (TrainState(zero, params, {"nu": flat[path]}), "moments after step 5"),
    ):
        with pytest.raises(NonFiniteError, match=message):
            loop._check_finite(state, 5)
    loop._check_finite(TrainState(zero, params, ()), 5)
