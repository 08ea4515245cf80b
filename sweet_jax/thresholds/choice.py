"""The result of choosing thresholds, as numbers and as one line of text."""

import dataclasses
from typing import Any

from sweet_jax.exits.criteria import FULL

# Rules for a budget: the most expensive threshold, or the one with the best score.
CHOOSE = ("cost", "score")
# The targets that these rules apply to.
BUDGETS = ("speedup", "milliseconds")
_ERRS = {
    "max_accuracy_loss": "lose a right answer of the full model",
    "max_disagreement": "are answered differently from the full model",
}


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The statistical evidence for a bound on a risk.

    Attributes:
        delta: probability that the bound is wrong, over draws of calibration rows.
        errors: number of rows with an error at the chosen thresholds; if the target is
            not feasible, at the first thresholds that failed the test.
        p_value: probability of so few errors if the risk were the requested one.
        rows_without_error: number of rows that show the bound if none has an error.
        rows_at_this_rate: number of rows that show it at the error rate of `errors`;
            None: no number does.
    """

    delta: float
    errors: int
    p_value: float
    rows_without_error: int
    rows_at_this_rate: int | None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Thresholds for a target, with their cost and evidence; `str` gives one line.

    Attributes:
        criterion: the criterion whose scores are compared with the thresholds.
        target: `speedup`, `milliseconds`, `max_accuracy_loss` or `max_disagreement`.
        asked: the value asked for.
        feasible: False only for a risk within which no thresholds save anything.
        thresholds: one for all exits, or one per exit but the last. If a risk is not
            feasible, `FULL`: every exit runs.
        reached: the value of the target on the calibration rows. For a risk, the bound
            that is guaranteed: the requested one, or if that is not feasible, the
            smallest bound that the rows show for the first thresholds that failed.
        cost_fraction: mean layers run / layers of the full model, on the same rows.
        num_rows: number of rows used for the choice.
        evidence: only for a risk, else None.
        holds: whether the promise of a risk holds for the thresholds. If every exit
            runs, it does, unless the full model is another one than the cascade's (see
            `Calibration.full`) and the rows do not show it.
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
    holds: bool = True

    @property
    def threshold(self) -> float:
        """The threshold of all exits; ValueError if each exit has its own."""
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
        """The result in one line."""
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
        where = "at the first thresholds that failed"
        if not self.holds:
            where = "although every exit ran: the full model is the one before rounding"
        return (
            f"every exit runs: {self.num_rows} calibration rows do not show that"
            f" {share} {sure}, only at most {self.reached:.3g} ({evidence.errors} did"
            f" {where}); it takes {needed}"
        )


def pick_target(**targets: float | None) -> tuple[str, float] | None:
    """Returns the name and value of the one given target, or None.

    Args:
        targets: values by name, such as threshold, speedup and max_accuracy_loss; None:
            not given.

    Raises:
        ValueError: several targets are given.
    """
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) > 1:
        listed = " and ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(
            f"{listed} are conflicting targets: each sets the thresholds; give only one"
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
