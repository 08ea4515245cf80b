"""Which phase, objective and batch each step has: a function of the step alone."""

import numpy as np
import pytest
from dense_model import EXIT_LAYERS, make_dense_model, make_rows

from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.training.losses import compute_class_weights
from sweet_jax.training.member_training import MemberTraining, TrainData, plan_phases
from sweet_jax.training.methods import make_members
from sweet_jax.training.objectives import Objective, Phase

JOINT = Objective((1.0,), (1.0, 1.0))


def make_training(**config) -> MemberTraining:
    """Returns 3 steps an epoch, 2 epochs."""
    settings = from_config_dict(
        {
            "exits": {"layers": EXIT_LAYERS},
            "train": {"batch_size": 5, "num_epochs": 2},
            **config,
        }
    )
    (member,) = make_members(settings, len(EXIT_LAYERS))
    data = TrainData(make_rows(), (4, 8), 0)
    return MemberTraining(make_dense_model(), member, data, settings)


def test_phases_cover_all_steps_once():
    phases = [Phase((JOINT,), steps_percent=share) for share in (50.0, 50.0, 100.0)]
    spans = [(first, stop) for _, first, stop in plan_phases(tuple(phases), 7)]
    assert spans == [(0, 4), (4, 7), (7, 14)]


@pytest.mark.parametrize(
    ("method", "spans"), [("sweet", [(0, 6)]), ("two_stage", [(0, 6), (6, 12)])]
)
def test_a_training_knows_its_steps(method, spans):
    training = make_training(method=method)
    assert training.steps_per_epoch == 3
    assert [(span.first, span.stop) for span in training.spans] == spans
    assert training.num_steps == spans[-1][1]


@pytest.mark.parametrize("start", range(7))
def test_batches_from_any_step_on_are_those_of_the_whole(start):
    training = make_training()
    whole = list(training.iterate_plans(0, 6))
    assert len(whole) == 6
    later = list(training.iterate_plans(start, 6))
    for one, other in zip(later, whole[start:], strict=True):
        assert one.length == other.length
        np.testing.assert_array_equal(one.rows, other.rows)


def test_objectives_take_turns_over_the_steps_of_their_phase():
    (span,) = make_training(method="alternating").spans
    even, odd = span.phase.objectives
    assert [span.find_objective(step) for step in range(4)] == [even, odd, even, odd]
    (span,) = make_training(method="sweet(a=1>0)").spans
    first, second = span.phase.objectives
    found = [span.find_objective(step) for step in range(6)]
    assert found == [first] * 3 + [second] * 3


def test_parameters_belong_to_the_segment_of_the_next_exit():
    training = make_training()
    found = [training.find_segment(f"encoder/layer_{i}/dense/bias") for i in range(4)]
    assert found == [0, 1, 2, 2]


def test_class_weights_are_those_of_the_training_rows():
    assert make_training().class_weights is None
    training = make_training(train={"batch_size": 5, "class_weights": "balanced"})
    labels = training.data.rows.labels
    assert training.class_weights == compute_class_weights(labels, 2)
