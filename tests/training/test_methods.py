"""Methods of other work: who trains what, what it costs, and that it resumes.

And methods of other packages, which are registered.
"""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from dense_model import EXIT_LAYERS as LAYERS
from dense_model import (
    Trained,
    assert_same_training,
    compile_once,
    copy_up_to,
    count_starts,
    init_dense_params,
    make_dense_model,
    make_rows,
    train_dense,
)
from safetensors.numpy import load_file
from tiny_configs import TINY_BERT

import sweet_jax
from sweet_jax import devices
from sweet_jax.arrays import Batch, Params
from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.models.init import compute_shapes
from sweet_jax.models.multi_exit import MultiExitClassifier, find_segment
from sweet_jax.runs.workdir import default_workdir
from sweet_jax.settings.fields import (
    ExitSettings,
    Settings,
    StudySettings,
    replace_fields,
    to_dict,
)
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.registries import BUILTIN_METHODS, METHODS
from sweet_jax.settings.rules import SettingsError
from sweet_jax.study.plan import make_plan
from sweet_jax.training.methods import make_members
from sweet_jax.training.objectives import Member, Objective, Phase, find_problem
from sweet_jax.training.state import TrainState, make_train_step
from sweet_jax.trees import flatten_paths, make_mask

STRATEGIES = BUILTIN_METHODS[3:]
JOINT_SEAMS = (1.0, 1.0)
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def model() -> MultiExitClassifier:
    """Three exits, with dropout."""
    return make_dense_model()


@pytest.fixture(scope="module")
def params(model) -> Params:
    return init_dense_params(model)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return make_random_batch(rows=6, length=9)


def make_random_batch(rows: int, length: int) -> Batch:
    """Returns rows of several lengths; the last one fills the batch."""
    rng = np.random.default_rng(3)
    mask = (np.arange(length) < rng.integers(3, length + 1, (rows, 1))).astype(np.int32)
    return Batch(
        token_ids=rng.integers(4, 30, mask.shape).astype(np.int32) * mask,
        type_ids=np.zeros_like(mask),
        mask=mask,
        labels=rng.integers(0, 2, rows).astype(np.int32),
        weights=(np.arange(rows) < rows - 1).astype(np.float32),
        row_ids=np.arange(rows, dtype=np.int32),
    )


# An optimiser that keeps the gradients as its state and moves nothing.
KEEP = optax.GradientTransformation(
    init=lambda params: jax.tree.map(jnp.zeros_like, params),
    update=lambda updates, state, params=None: (
        jax.tree.map(jnp.zeros_like, updates),
        updates,
    ),
)


@pytest.fixture(scope="module")
def gradients_of(model, params, batch) -> Callable[[Objective], dict[str, np.ndarray]]:
    """Objective -> the gradients of its very train step, by path, op by op."""

    def compute(objective: Objective) -> dict[str, np.ndarray]:
        step = make_train_step(model, objective, KEEP)
        state = TrainState(jnp.zeros((), jnp.int32), params, KEEP.init(params))
        state, _ = step(state, batch, KEY)
        return jax.tree.map(np.asarray, flatten_paths(state.opt_state))

    return functools.cache(compute)


@pytest.fixture(scope="module")
def per_exit(gradients_of) -> list[dict[str, np.ndarray]]:
    """The gradients of CE_j through everything below, for each exit j."""
    return [
        gradients_of(Objective(JOINT_SEAMS, tuple(np.eye(3)[j].tolist())))
        for j in range(3)
    ]


def get_phases(method: str) -> tuple[Phase, ...]:
    """Returns the phases of a method's single member."""
    settings = from_config_dict({"method": method, "exits": {"layers": LAYERS}})
    (member,) = make_members(settings, 3)
    assert member.exits == (0, 1, 2)
    return member.phases


def get_owner(path: str) -> str:
    """Returns `encoder` or `exit_i`."""
    return path.split("/")[0 if path.startswith("encoder") else 1]


def assert_sums(
    gradients: dict[str, np.ndarray],
    per_exit: list[dict[str, np.ndarray]],
    weigh: Callable[[str, int], float],
) -> None:
    """Compares gradients with sum_j weigh(path, j) d CE_j, at every path."""
    for path, value in gradients.items():
        expected = sum(weigh(path, j) * per_exit[j][path] for j in range(3))
        np.testing.assert_allclose(value, expected, rtol=2e-4, atol=1e-7, err_msg=path)
        assert value.any(), path


@pytest.mark.slow
@pytest.mark.parametrize("method", ["two_stage", "self_distill"])
def test_the_first_stage_trains_encoder_and_last_exit_alone(
    gradients_of, per_exit, params, method
):
    first, _ = get_phases(method)
    (objective,) = first.objectives
    gradients = gradients_of(objective)
    for path, value in gradients.items():
        np.testing.assert_array_equal(value, per_exit[2][path])
    for path, learns in flatten_paths(make_mask(params, first.trainable)).items():
        assert learns == (get_owner(path) in ("encoder", "exit_2")), path


@pytest.mark.slow
@pytest.mark.parametrize("method", ["two_stage", "self_distill"])
def test_the_second_stage_trains_the_other_exits_on_a_frozen_encoder(
    gradients_of, per_exit, params, method
):
    _, second = get_phases(method)
    (objective,) = second.objectives
    for path, value in gradients_of(objective).items():
        if get_owner(path) in ("encoder", "exit_2"):
            assert not value.any(), path
        elif method == "two_stage":
            own = per_exit[int(get_owner(path)[-1])][path]
            np.testing.assert_array_equal(value, own)
    for path, learns in flatten_paths(make_mask(params, second.trainable)).items():
        assert learns == (get_owner(path) in ("exit_0", "exit_1")), path


@pytest.mark.slow
def test_students_learn_the_teachers_answers_and_not_the_labels(
    gradients_of, model, params, batch
):
    (objective,) = get_phases("self_distill")[1].objectives
    outputs: Any = model.apply(
        {"params": params}, batch, True, rngs={"dropout": jax.random.fold_in(KEY, 0)}
    )
    log_p, log_q = (
        scipy.special.log_softmax(np.asarray(outputs[i].logits_BC, np.float64), axis=1)
        for i in (0, 2)
    )
    # d KL(p || q) / d z_c = p_c (log p_c - log q_c - KL), by hand.
    divergence_B1 = (np.exp(log_p) * (log_p - log_q)).sum(axis=1, keepdims=True)
    slope_BC = np.exp(log_p) * (log_p - log_q - divergence_B1)
    expected = (slope_BC * batch.weights[:, None]).sum(axis=0) / batch.weights.sum()
    bias = gradients_of(objective)["exits/exit_0/classifier/bias"]
    np.testing.assert_allclose(bias, expected, rtol=1e-4, atol=1e-7)


def test_alternating_is_the_last_exit_in_even_steps_and_all_in_odd_ones(
    gradients_of, per_exit
):
    (phase,) = get_phases("alternating")
    even, odd = (phase.choose_objective(step, 7) for step in (0, 1))
    assert [phase.choose_objective(step, 7) for step in (2, 3, 4)] == [even, odd, even]
    for path, value in gradients_of(even).items():
        np.testing.assert_array_equal(value, per_exit[2][path])
    assert_sums(gradients_of(odd), per_exit, lambda path, j: 1.0)


def test_weights_are_the_layers_that_an_exit_needs(gradients_of, per_exit):
    (phase,) = get_phases("weighted")
    (objective,) = phase.objectives
    weights = (1 / 7, 2 / 7, 4 / 7)  # exits behind 1, 2 and 4 layers
    assert_sums(gradients_of(objective), per_exit, lambda path, j: weights[j])


def test_gradient_equilibrium_gives_a_segment_the_mean_of_all_exits_above(
    gradients_of, per_exit
):
    (phase,) = get_phases("gradient_equilibrium")
    (objective,) = phase.objectives

    def weigh(path: str, j: int) -> float:
        if not path.startswith("encoder"):
            return float(get_owner(path) == f"exit_{j}")
        above = 3 - find_segment(path, LAYERS)
        return 1 / above if j >= find_segment(path, LAYERS) else 0.0

    assert_sums(gradients_of(objective), per_exit, weigh)


@pytest.mark.parametrize("train", [False, True])
def test_what_the_exits_send_down_changes_no_answer(model, params, batch, train):
    def run(**scales: Any) -> Any:
        rngs = {"dropout": KEY}
        return model.apply({"params": params}, batch, train, **scales, rngs=rngs)

    plain = run()
    for method in ("two_stage", "gradient_equilibrium"):
        objective = get_phases(method)[-1].objectives[0]
        scaled = run(seam_scale=objective.seam_scale, state_scale=objective.state_scale)
        for one, two in zip(plain, scaled, strict=True):
            np.testing.assert_array_equal(one.logits_BC, two.logits_BC)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["two_stage", "self_distill"])
def test_a_step_on_a_frozen_encoder_costs_little_more_than_a_forward_pass(
    method,
):
    model = MultiExitClassifier(
        encoder=make_encoder(parse_config(TINY_BERT), 4, jnp.float32),
        exit_layers=LAYERS,
        exit_numbers=(0, 1, 2),
        num_classes=2,
        features=16,
        settings=ExitSettings(pooling="mean", dropout=0.1),
    )
    params, batch = compute_shapes(model), make_random_batch(rows=4, length=32)

    def count_flops(function: Any, *args: Any) -> float:
        # Of what is traced, before XLA drops what nobody reads.
        cost: Any = jax.jit(function).lower(*args).cost_analysis()
        return cost["flops"]

    def forward(params: Params, batch: Batch, key: jax.Array) -> Any:
        return model.apply({"params": params}, batch, True, rngs={"dropout": key})

    def step_flops(objective: Objective) -> float:
        step = make_train_step(model, objective, optax.identity())
        state: Any = TrainState(jnp.zeros((), jnp.int32), params, optax.EmptyState())
        return count_flops(step, state, batch, KEY)

    alone = count_flops(forward, params, batch, KEY)
    first, second = (phase.objectives[0] for phase in get_phases(method))
    assert step_flops(second) < 1.15 * alone
    assert step_flops(first) > 2.3 * alone


@pytest.fixture(scope="module")
def train_whole(tmp_path_factory) -> Iterator[Callable[..., Trained]]:
    """Method -> a training of 3 steps a phase that nothing interrupted."""

    def train(method: str) -> Trained:
        root = tmp_path_factory.mktemp(method) / "run"
        epochs = 1 if len(get_phases(method)) > 1 else 2
        return train_dense(
            root, buckets=(4, 8), method=method, train={"num_epochs": epochs}
        )

    with compile_once(tmp_path_factory.mktemp("programs")):
        yield functools.cache(train)


@pytest.mark.parametrize(
    ("method", "step"),
    [
        ("two_stage", 2),
        ("two_stage", 3),
        ("two_stage", 4),
        ("alternating", 3),
    ],
)
@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(train_whole, tmp_path, method, step):
    whole = train_whole(method)
    assert len(whole.steps) == 6
    root = copy_up_to(whole, tmp_path / "run", step)
    epochs = 1 if method == "two_stage" else 2
    resumed = train_dense(
        root, buckets=(4, 8), method=method, train={"num_epochs": epochs}
    )
    assert_same_training(resumed, whole)
    # From this very step: an older one would come to the same end. The log goes on as
    # it was when the step was saved, before a phase that begins there.
    assert count_starts(resumed, step) == 1
    for earlier in range(step):
        assert count_starts(resumed, earlier) == count_starts(whole, earlier)


@pytest.mark.slow
def test_frozen_parameters_keep_every_bit(train_whole):
    whole = train_whole("two_stage")
    state = load_file(whole.root / "steps" / "3" / "state.safetensors")
    after_stage_1 = {
        name.removeprefix("params/"): leaf
        for name, leaf in state.items()
        if name.startswith("params/")
    }
    moved = {
        get_owner(path)
        for path, leaf in whole.params.items()
        if not np.array_equal(leaf, after_stage_1[path])
    }
    assert moved == {"exit_0", "exit_1"}


@pytest.mark.slow
def test_each_stage_has_a_schedule_of_its_own(train_whole):
    rates = [row["learning_rate"] for row in train_whole("two_stage").steps]
    assert rates[:3] == rates[3:]
    assert len(set(rates[:3])) > 1


@pytest.mark.slow
def test_programs_are_at_most_objectives_times_lengths(train_whole):
    costs = [row["cost"] for row in train_whole("alternating").rows if "cost" in row]
    assert [2 < cost["num_programs"] <= 4 for cost in costs] == [True]
    costs = [row["cost"] for row in train_whole("two_stage").rows if "cost" in row]
    assert [cost["phase"] for cost in costs] == [0, 3]
    assert all(cost["num_programs"] == 2 for cost in costs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    STRATEGIES,
)
def test_each_strategy_overfits_eight_examples(tmp_path, monkeypatch, method):
    one = jax.devices()[:1]
    monkeypatch.setattr(devices.jax, "devices", lambda: one)
    trained = train_dense(
        tmp_path / "run",
        model=make_dense_model(dropout=0.0),
        rows=make_rows(8),
        method=method,
        train={"batch_size": 8, "num_epochs": 60, "checkpoint_every_steps": 1000},
        optim={
            "encoder_learning_rate": 0.05,
            "exit_learning_rate": 0.05,
            "schedule": "constant",
        },
    )
    losses = np.array([row["loss"] for row in trained.steps])
    assert (losses[-1] < 0.1 * losses[0]).all(), losses[-1]


@pytest.mark.parametrize("method", STRATEGIES)
def test_strategies_are_one_model_and_clip_it_as_a_whole(method):
    settings = from_config_dict({"method": method, "exits": {"layers": LAYERS}})
    assert len(make_members(settings, len(LAYERS))) == 1
    assert settings.optim.clip_scope == "global"
    assert settings.method_label == method
    with pytest.raises(SettingsError, match="method with faithful_release=True"):
        from_config_dict({"method": method, "faithful_release": True})
    with pytest.raises(SettingsError, match="allowed are global"):
        from_config_dict({"method": method, "optim": {"clip_scope": "segment"}})


@pytest.mark.parametrize("method", BUILTIN_METHODS)
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


def make_last_two(settings: Settings, num_exits: int) -> tuple[Member, ...]:
    """A method of somebody else: the last two exits alone, half a training each."""

    def weigh(exit_number: int) -> tuple[float, ...]:
        return tuple(float(i == exit_number) for i in range(num_exits))

    seams = (1.0,) * (num_exits - 1)
    parts = tuple(Objective(seams, weigh(num_exits - i)) for i in (1, 2))
    return (Member("", tuple(range(num_exits)), (Phase(parts),)),)


@pytest.fixture
def registry(monkeypatch) -> None:
    """Whatever a test registers is forgotten after it."""
    monkeypatch.setattr(METHODS, "_values", dict(METHODS._values))


@pytest.fixture
def last_two(registry) -> str:
    """The name under which `make_last_two` is registered."""
    sweet_jax.register_method("last_two", make_last_two)
    return "last_two"


def test_a_registered_method_trains_and_is_shown_by_its_name(last_two, tmp_path):
    trained = train_dense(tmp_path / "run", method=last_two)
    first, last = trained.steps[0]["loss"], trained.steps[-1]["loss"]
    assert first[0] != last[0], "its encoder learns, so every exit's loss moves"
    start = flatten_paths(init_dense_params(make_dense_model()))
    for path, value in trained.params.items():
        moved = not np.array_equal(value, start[path])
        # Weight decay reaches exit 0, too, but not its biases.
        if path.endswith("bias"):
            assert moved == (not path.startswith("exits/exit_0/")), path
    settings = from_config_dict({"method": last_two})
    assert settings.method_label == last_two
    assert default_workdir(settings).name.startswith("rotten_tomatoes-minilm-l6-last_t")
    plan = make_plan(
        to_dict(Settings()), StudySettings(methods=("sweet", last_two), seeds=(0,))
    )
    assert [cell.group.method for cell in plan.cells] == ["sweet", last_two]


def test_a_registered_method_may_clip_by_segment_and_is_not_of_the_release(last_two):
    assert from_config_dict({"method": last_two}).optim.clip_scope == "global"
    clipped = {"method": last_two, "optim": {"clip_scope": "segment"}}
    assert from_config_dict(clipped).optim.clip_scope == "segment"
    with pytest.raises(SettingsError, match="faithful_release=True='last_two': allow"):
        from_config_dict({"method": last_two, "faithful_release": True})
    with pytest.raises(SettingsError, match="belongs to method=sweet, not to last_two"):
        from_config_dict({"method": "last_two(a=0.2)"})
    with pytest.raises(SettingsError, match=r"did you mean last_two\?"):
        from_config_dict({"method": "last_too"})


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("sweet", make_last_two, "'sweet' is registered already: choose another name"),
        ("last_two", make_last_two, "'last_two' is registered already"),
        ("Last two", make_last_two, "up to 64 lower-case letters"),
        ("half", "make_half", "method 'half' is a str: register a function"),
    ],
)
def test_a_name_that_is_taken_or_a_method_that_is_none_is_refused(
    last_two, name, method, message
):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        sweet_jax.register_method(name, method)
    assert "\n" not in str(caught.value)
    assert make_members(from_config_dict({"method": "sweet"}), 3)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (None, "it returns None, expected a tuple of Members"),
        ((Member("", (0, 1, 2), ()),), "phases=(), expected a tuple of one or more"),
    ],
)
def test_what_a_registered_method_returns_is_checked_in_one_line(
    registry, members, message
):
    sweet_jax.register_method("broken", lambda settings, n: members)
    settings = from_config_dict({"method": "broken"})
    with pytest.raises(SettingsError, match=re.escape(message)) as caught:
        make_members(settings, 3)
    assert str(caught.value).startswith("method=broken with 3 exits: ")
    assert "correct the function that is registered" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", BUILTIN_METHODS)
def test_our_own_methods_pass_the_check_of_others(method):
    settings = from_config_dict({"method": method, "exits": {"layers": (0, 1, 3)}})
    for num_exits in (1, 2, 3):
        layers = {"exits.layers": (0, 1, 3)[:num_exits]}
        members = make_members(replace_fields(settings, layers), num_exits)
        assert find_problem(members, num_exits) is None
