"""A choice of thresholds: what its line says, and what may be asked for together."""

import dataclasses
import json

import pytest

from sweet_jax.exits.criteria import FULL
from sweet_jax.thresholds.choice import Choice, Evidence, check_choose, pick_target


def test_conflicting_targets_are_refused():
    assert pick_target(threshold=None, speedup=None) is None
    assert pick_target(threshold=None, speedup=2.0) == ("speedup", 2.0)
    with pytest.raises(ValueError, match=r"threshold=0\.9 and speedup=2\.0 are conf"):
        pick_target(threshold=0.9, speedup=2.0, max_accuracy_loss=None)
    for target in ("threshold", "max_accuracy_loss", ""):
        check_choose("cost", target)
        with pytest.raises(ValueError, match="choose=score is for a speedup or milli"):
            check_choose("score", target)


def make_choice(**changes) -> Choice:
    """Returns one threshold for all exits, which halves the cost of 40 rows."""
    fields = {
        "criterion": "confidence",
        "target": "speedup",
        "asked": 1.75,
        "feasible": True,
        "thresholds": (0.875,),
        "reached": 2.0,
        "cost_fraction": 0.5,
        "num_rows": 40,
    }
    return Choice(**(fields | changes))


EVIDENCE = Evidence(
    delta=0.1, errors=2, p_value=0.034, rows_without_error=57, rows_at_this_rate=90
)
RISK = {"target": "max_accuracy_loss", "asked": 0.04, "reached": 0.04}
NOT_FEASIBLE = RISK | {"feasible": False, "thresholds": (FULL,), "cost_fraction": 1.0}
LOSE = "of inputs lose a right answer of the full model"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {},
            "confidence >= 0.875: speed-up 2, speed-up 1.75 asked (40 calibration"
            " rows)",
        ),
        (
            {"target": "milliseconds", "asked": 12.0, "reached": 11.46},
            "confidence >= 0.875: 11.5 ms per input, 12 ms per input asked"
            " (speed-up 2.00 in layers, 40 calibration rows)",
        ),
        (
            RISK | {"evidence": EVIDENCE, "thresholds": (0.5, FULL)},
            f"confidence >= 0.5, full: with probability 0.9 at most 0.04 {LOSE} (2 of"
            " 40 rows did, p = 0.034); speed-up 2.00 in layers",
        ),
        (
            RISK | {"evidence": EVIDENCE, "target": "max_disagreement"},
            "confidence >= 0.875: with probability 0.9 at most 0.04 of inputs are"
            " answered differently from the full model (2 of 40 rows did, p = 0.034);"
            " speed-up 2.00 in layers",
        ),
        (
            NOT_FEASIBLE | {"evidence": EVIDENCE, "reached": 0.0625},
            "every exit runs: 40 calibration rows do not show that at most 0.04"
            f" {LOSE} with probability 0.9, only at most 0.0625 (2 did at the first"
            " thresholds that failed); it takes 57 rows without an error, 90 at this"
            " rate",
        ),
        (
            NOT_FEASIBLE
            | {
                "evidence": dataclasses.replace(EVIDENCE, rows_at_this_rate=None),
                "reached": 0.0625,
            },
            "it takes 57 rows without an error, no number at this rate",
        ),
        (
            NOT_FEASIBLE
            | {"evidence": dataclasses.replace(EVIDENCE, errors=0), "reached": 0.0625},
            "it takes 57 rows without an error",
        ),
        (
            NOT_FEASIBLE | {"evidence": EVIDENCE},
            "every exit runs: no thresholds of this model save anything",
        ),
    ],
)
def test_what_came_out_is_said_in_a_line(changes, message):
    choice = make_choice(**changes)
    # The end of it: what two lines have in common is compared once.
    assert str(choice) == choice.message
    assert choice.message.endswith(message)
    if not message.startswith("it takes"):
        assert choice.message == message


def test_a_threshold_per_exit_is_no_single_threshold():
    assert make_choice().threshold == 0.875
    with pytest.raises(ValueError, match="each of 3 exits has its own threshold: read"):
        _ = make_choice(thresholds=(0.5, 0.6, 0.7)).threshold


def test_a_choice_is_plain_json_without_infinity():
    choice = make_choice(**NOT_FEASIBLE, evidence=EVIDENCE)
    text = json.dumps(choice.to_json(), allow_nan=False)
    fields = json.loads(text)
    assert fields["thresholds"] == [None]
    assert fields["evidence"] == dataclasses.asdict(EVIDENCE)
    assert (fields["speedup"], fields["message"]) == (1.0, choice.message)
    # Nothing that is known of a choice is left out.
    names = {field.name for field in dataclasses.fields(Choice)}
    assert fields.keys() == names | {"speedup", "message"}


def test_a_way_of_choosing_is_one_of_ours():
    check_choose("score", "milliseconds")
    with pytest.raises(ValueError, match="choose='best': allowed are cost, score"):
        check_choose("best")


def test_the_target_of_several_that_is_given_may_be_0():
    assert pick_target(speedup=None, max_disagreement=0.0) == ("max_disagreement", 0.0)
    assert pick_target() is None
