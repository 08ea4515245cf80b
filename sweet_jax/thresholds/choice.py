"""What a choice of thresholds is, in numbers and in a line."""

import dataclasses
from typing import Any

from sweet_jax.exits.criteria import FULL

# What is chosen within a budget: the dearest threshold, or that of the best score.
CHOOSE = ("cost", "score")
# The targets that it is for.
BUDGETS = ("speedup", "milliseconds")
_ERRS = {
    "max_accuracy_loss": "lose a right answer of the full model",
    "max_disagreement": "are answered differently from the full model",
}


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the rows say about a risk.

    Attributes:
        delta: the promise may be wrong for this share of calibration draws.
        errors: rows that err at the chosen thresholds; where the target is not
            feasible, at the first ones that did not pass.
        p_value: the chance of so few errors there if the risk were what was asked.
        rows_without_error: rows that could make the promise if none erred.
        rows_at_this_rate: rows that could if errors came as in `errors`; None: no
            number of rows could.
    """

    delta: float
    errors: int
    p_value: float
    rows_without_error: int
    rows_at_this_rate: int | None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Thresholds for a target, and what is known of them; `str` is one line.

    Attributes:
        criterion: whose scores the thresholds are compared with.
        target: `speedup`, `milliseconds`, `max_accuracy_loss` or `max_disagreement`.
        asked: the value asked for.
        feasible: True, but for a risk where nothing can be saved within it.
        thresholds: one for all exits, or one per exit but the last. Where a risk is
            not feasible those of the full model (`FULL`), which has none.
        reached: the value on the calibration rows of what was asked. For a risk the
            bound that is promised: the one asked, or where not feasible, the least that
            the rows could have shown for the first thresholds that did not pass.
        cost_fraction: mean layers run / layers of the full model, on the same rows.
        num_rows: rows that the choice was made on.
        evidence: for a risk, else None.
    """

    criterion: str
    target: str
    asked: float
    feasible: bool
    thresholds: tuple[float, ...]
    reached: float
    cost_fraction: float
    num_rows: int
    evidence: Evidence | None = None

    @property
    def threshold(self) -> float:
        """The one threshold of all exits; ValueError where each has its own."""
        if len(self.thresholds) != 1:
            raise ValueError(
                f"each of {len(self.thresholds)} exits has its own threshold: read"
                " Choice.thresholds, or choose with per_exit=False"
            )
        return self.thresholds[0]

    @property
    def speedup(self) -> float:
        """1 / cost_fraction."""
        return 1 / self.cost_fraction

    @property
    def message(self) -> str:
        """What came out, in a line."""
        if self.evidence is not None:
            return self._describe_risk(self.evidence)
        asked, reached = (
            _format_cost(self.target, value) for value in (self.asked, self.reached)
        )
        return f"{self._describe_rule()}: {reached}, {asked} asked{self._at()}"

    def __str__(self) -> str:
        """Returns the message."""
        return self.message

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for JSON, which has no infinity: `FULL` is None."""
        return dataclasses.asdict(self) | {
            "thresholds": [None if t == FULL else t for t in self.thresholds],
            "speedup": self.speedup,
            "message": self.message,
        }

    def _at(self) -> str:
        more = f"speed-up {self.speedup:.2f} in layers, "
        if self.target == "speedup":
            more = ""
        return f" ({more}{self.num_rows} calibration rows)"

    def _describe_rule(self) -> str:
        limits = ", ".join(
            "full" if threshold == FULL else f"{threshold:.4g}"
            for threshold in self.thresholds
        )
        return f"{self.criterion} >= {limits}"

    def _describe_risk(self, evidence: Evidence) -> str:
        sure = f"with probability {1 - evidence.delta:g}"
        share = f"at most {self.asked:.3g} of inputs {_ERRS[self.target]}"
        if self.feasible:
            return (
                f"{self._describe_rule()}: {sure} {share}"
                f" ({evidence.errors} of {self.num_rows} rows did, p ="
                f" {evidence.p_value:.2g}); speed-up {self.speedup:.2f} in layers"
            )
        if self.reached <= self.asked:
            return "every exit runs: no thresholds of this model save anything"
        needed = f"{evidence.rows_without_error} rows without an error"
        if evidence.errors:
            number = evidence.rows_at_this_rate
            needed += f", {'no number' if number is None else number} at this rate"
        return (
            f"every exit runs: {self.num_rows} calibration rows do not show that"
            f" {share} {sure}, only at most {self.reached:.3g} ({evidence.errors} did"
            f" at the first thresholds that failed); it takes {needed}"
        )


def pick_target(**targets: float | None) -> tuple[str, float] | None:
    """Returns the name and value of the one target that is given; None if none is.

    Args:
        targets: what people may ask for, such as threshold, speedup and
            max_accuracy_loss; None: not asked.

    Raises:
        ValueError: several are given.
    """
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) > 1:
        listed = " and ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(
            f"{listed} are conflicting targets: each decides on the thresholds; give"
            " one"
        )
    return next(iter(given.items()), None)


def check_choose(choose: str, target: str = "speedup") -> None:
    """Raises ValueError unless `choose` is known and fits a target."""
    if choose not in CHOOSE:
        raise ValueError(f"choose={choose!r}: allowed are {', '.join(CHOOSE)}")
    if choose != CHOOSE[0] and target not in BUDGETS:
        raise ValueError(
            f"choose={choose} is for a speedup or milliseconds: give one, or leave it"
            " out"
        )


def _format_cost(target: str, value: float) -> str:
    if target == "speedup":
        return f"speed-up {value:.4g}"
    return f"{value:.3g} ms per input"
