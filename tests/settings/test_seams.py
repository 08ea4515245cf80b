"""The seams' share of the gradient: per seam, on a schedule, and as a text."""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_model import (
    EXIT_LAYERS,
    Trained,
    assert_same_training,
    compile_once,
    copy_up_to,
    count_starts,
    init_dense_params,
    make_dense_model,
    train_dense,
)
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.arrays import Batch
from sweet_jax.models.multi_exit import find_segment
from sweet_jax.settings.fields import Settings, replace_fields
from sweet_jax.settings.from_config import from_config_dict, parse_config_string
from sweet_jax.settings.registries import BUILTIN_METHODS
from sweet_jax.settings.rules import SettingsError
from sweet_jax.settings.seams import parse_method
from sweet_jax.training.losses import compute_exit_losses
from sweet_jax.training.methods import make_members, separates_segments
from sweet_jax.training.objectives import Objective
from sweet_jax.trees import flatten_paths


def get_objectives(method: str) -> tuple[Objective, ...]:
    """Returns the objectives of the single phase of a method."""
    (member,) = make_members(from_config_dict({"method": method}), 3)
    (phase,) = member.phases
    assert not phase.takes_turns
    return phase.objectives


@pytest.mark.slow
def test_each_seam_has_its_own_share_of_the_gradient(rng):
    scales = (0.25, 0.5)
    (objective,) = get_objectives("sweet(a=0.25/0.5)")
    assert objective == Objective(scales, (1.0, 1.0, 1.0))
    model = make_dense_model()
    params = init_dense_params(model)
    ids = rng.integers(4, 30, (4, 5)).astype(np.int32)
    row = np.ones(4, np.int32)
    batch = Batch(ids, 0 * ids, 0 * ids + 1, ids[:, 0] % 2, row.astype(np.float32), row)

    def compute_gradients(seams: tuple[float, ...]) -> list[dict[str, Any]]:
        def losses(p: Any) -> tuple[jax.Array, ...]:
            rngs = {"dropout": jax.random.key(0)}
            outputs: Any = model.apply({"params": p}, batch, True, seams, rngs=rngs)
            sums = compute_exit_losses(outputs, batch.labels, batch.weights)
            return tuple(map(jnp.asarray, sums))

        values, pull_back = jax.vjp(losses, params)
        units = [
            tuple(jnp.float32(i == j) for i in range(len(values))) for j in range(3)
        ]
        return [flatten_paths(pull_back(unit)[0]) for unit in units]

    joint = compute_gradients((1.0, 1.0))
    for j, gradients in enumerate(compute_gradients(objective.seam_scale)):
        for path, value in gradients.items():
            between = scales[find_segment(path, EXIT_LAYERS) : j]
            # Powers of two: exact.
            expected = joint[j][path] * np.prod(between, dtype=np.float32)
            np.testing.assert_allclose(value, expected, rtol=1e-6, atol=0)


def test_a_schedule_is_one_phase_of_equal_parts():
    parts = get_objectives("sweet(a=1>0.5>0)")
    assert [objective.seam_scale for objective in parts] == [
        (1.0, 1.0),
        (0.5, 0.5),
        (0.0, 0.0),
    ]


@pytest.mark.parametrize(
    ("method", "separates"),
    [
        ("sweet", True),
        ("sweet(a=1/0.5)", True),
        ("sweet(a=1>0)", True),
        ("early_exit", False),
        ("two_stage", False),
        ("alternating", False),
        ("gradient_equilibrium", True),
    ],
)
def test_segments_own_their_tables_where_any_seam_ever_holds_back(method, separates):
    members = make_members(from_config_dict({"method": method}), 3)
    assert separates_segments(members) == separates


@pytest.fixture(scope="module")
def train_whole(tmp_path_factory) -> Iterator[Callable[..., Trained]]:
    """(Method, clip scope) -> a training of 6 steps that nothing interrupted."""

    def train(method: str, clip_scope: str = "auto") -> Trained:
        root = tmp_path_factory.mktemp("whole") / "run"
        return train_dense(root, method=method, optim={"clip_scope": clip_scope})

    with compile_once(tmp_path_factory.mktemp("programs")):
        yield functools.cache(train)


def count_programs(trained: Trained) -> list[int]:
    """Returns the programs of each phase."""
    return [row["cost"]["num_programs"] for row in trained.rows if "cost" in row]


@pytest.mark.slow
def test_equal_parts_are_the_training_without_parts(train_whole):
    """Nothing starts afresh between parts: moments, rates, dropout, row order go on."""
    parts, plain = train_whole("sweet(a=0.5>0.5)"), train_whole("sweet(a=0.5)")
    assert_same_training(parts, plain)
    assert count_programs(parts) == count_programs(plain) == [1]


@pytest.mark.slow
def test_together_then_separately(train_whole):
    schedule = train_whole("sweet(a=1>0)", "global")
    joint, apart = train_whole("early_exit"), train_whole("sweet", "global")
    assert schedule.steps[:3] == joint.steps[:3]
    # The fourth step still starts where joint training had come to.
    assert schedule.steps[3]["loss"] == joint.steps[3]["loss"]
    assert schedule.steps[3]["gradient_norm"] != joint.steps[3]["gradient_norm"]
    assert schedule.steps[5]["loss"] not in (
        joint.steps[5]["loss"],
        apart.steps[5]["loss"],
    )
    for other in (joint, apart):
        assert [row["learning_rate"] for row in schedule.steps] == [
            row["learning_rate"] for row in other.steps
        ]
    assert count_programs(schedule) == [2]


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_run_stopped_around_the_change_goes_on_bit_for_bit(
    train_whole, tmp_path, step
):
    whole = train_whole("sweet(a=1>0)", "global")
    root = copy_up_to(whole, tmp_path / "run", step)
    resumed = train_dense(root, method="sweet(a=1>0)", optim={"clip_scope": "global"})
    assert_same_training(resumed, whole)
    # From this very step: an older one would come to the same end.
    assert count_starts(resumed, step) == count_starts(whole, step) + 1


SHARES = st.floats(0, 1)
SEVERAL = st.lists(SHARES, min_size=2, max_size=5).map(tuple)
MANY = SEVERAL.filter(lambda scales: any(a < 1 for a in scales))


@given(
    st.one_of(
        st.sampled_from(BUILTIN_METHODS).map(lambda name: {"method": name}),
        st.floats(0, 1, exclude_max=True).map(
            lambda a: {"method": "sweet", "boundary_gradient_scale": a}
        ),
        MANY.map(lambda a: {"method": "sweet", "boundary_gradient_scales": a}),
        MANY.map(lambda a: {"method": "sweet", "boundary_gradient_phases": a}),
    )
)
def test_a_method_is_read_back_from_its_label(fields):
    joint = replace_fields(Settings(), {"boundary_gradient_scale": 0.0})
    settings = replace_fields(joint, fields)
    parsed = parse_method(settings.method_label)
    assert replace_fields(joint, parsed) == settings
    assert from_config_dict({"method": settings.method_label}) == from_config_dict(
        fields
    )


@pytest.mark.parametrize(
    ("label", "fields"),
    [
        ("sweet", {}),
        ("sweet(a=0.2)", {"boundary_gradient_scale": 0.2}),
        ("sweet(a=0.2/0.5/0)", {"boundary_gradient_scales": (0.2, 0.5, 0)}),
        ("sweet(a=1>0)", {"boundary_gradient_phases": (1, 0)}),
    ],
)
def test_labels_are_short_and_config_strings_take_them(label, fields):
    assert from_config_dict(fields).method_label == label
    assert parse_config_string(f"seed=3,method={label}") == {
        "seed": 3,
        "method": "sweet",
        **fields,
    }
    settings = from_config_dict(load_config_file(f"method={label}"))
    assert settings == from_config_dict(fields)
    assert settings.optim.clip_scope == "segment"


def load_config_file(text: str) -> Any:
    """Returns what configs/early_exit.py makes of a config string."""
    path = Path("configs/early_exit.py")
    spec = importlib.util.spec_from_file_location("early_exit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(text)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"method": "sweet(a=x)"}, "allowed are one number (a=0.2), one per seam"),
        ({"method": "sweet(a=)"}, "allowed are one number (a=0.2), one per seam"),
        ({"method": "sweet(a=1>0/1)"}, "allowed are one number (a=0.2), one per seam"),
        ({"method": "sweet(b=1)"}, "did you mean sweet?"),
        ({"method": "sweat(a=0.2)"}, "method='sweat': allowed are sweet"),
        ({"method": "sweet(a=1)"}, "allowed is 0 <= a < 1"),
        ({"method": "sweet(a=nan)"}, "allowed is 0 <= a < 1"),
        ({"method": "sweet(a=1>1)"}, "stops no gradient: set method=early_exit"),
        ({"method": "sweet(a=1/2)"}, "allowed are numbers from 0 to 1"),
        ({"method": "sweet(a=0>nan)"}, "allowed are numbers from 0 to 1"),
        ({"method": "early_exit(a=1>0)"}, "belongs to method=sweet, not to early_exit"),
        (
            {"boundary_gradient_scales": 0.5},
            "is one number: set boundary_gradient_scale=0.5",
        ),
        ({"boundary_gradient_phases": ("1", 0)}, "is a str, expected float"),
        (
            {"boundary_gradient_scale": 0.2, "boundary_gradient_phases": (1, 0)},
            "contradict each other: set only one of them",
        ),
        (
            {"boundary_gradient_scales": (0, 1), "boundary_gradient_phases": (1, 0)},
            "contradict each other: set only one of them",
        ),
        (
            {"method": "sweet(a=0.2)", "boundary_gradient_scale": 0.5},
            "boundary_gradient_scale=0.5 contradicts method=sweet(a=0.2)",
        ),
        (
            {"method": "sweet(a=0.2/0)", "exits": {"layers": (0, 1, 3, 5)}},
            "has 2 numbers, but 4 exits have 3 seams between them: give 3",
        ),
        (
            {"method": "sweet(a=1>0)", "faithful_release": True},
            "contradicts faithful_release=True, which means boundary_gradient_phases",
        ),
    ],
)
def test_bad_shares_are_one_line(config, message):
    with pytest.raises(SettingsError) as caught:
        from_config_dict(config)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_exits_found_later_are_counted_with_the_members():
    settings = from_config_dict({"boundary_gradient_scales": (0.2, 0.5)})
    assert len(make_members(settings, 3)) == 1
    with pytest.raises(SettingsError, match="has 2 numbers, but 4 exits have 3 seams"):
        make_members(settings, 4)
