"""The paper's claims, and the question of the seam, as verdicts from intervals.

A verdict rests on the interval over seeds and test rows. Every interval is at its level
by itself: of twenty differences that are none, one is expected to look decided.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sweet_jax.study.estimates import Sample, describe_difference

# From here up a speed-up is fast, and up to here slow; between them neither.
FAST, SLOW = 3.0, 2.0
# Scores that differ by less are level. That two methods are equal no interval can show;
# a point is below the effects that the paper reports (1.1 and 2.3).
MARGIN = 0.01
# The numbers that a comparison is of.
_NAMES = {"exits": "exits", "area": "area/{}", "speedup": "at_cost/{}"}
# The verdict of several comparisons is the first of these that one of them has.
_BY_WEIGHT = ("did not hold", "no interval", "undecided")


class Comparison(NamedTuple):
    """A difference of two methods that a claim is about.

    Attributes:
        ours: label of a method.
        theirs: label of the method that is subtracted.
        what: `exits` (mean score of exits alone), `area`, or `speedup` (mean score at
            the costs of speed-ups, equal for both methods), the last two of the
            cascade by the first criterion.
        part: of exits `all`, `early` or `late`; of speed-ups `fast` or `slow`.
        kind: see `decide`.
    """

    ours: str
    theirs: str
    what: str
    part: str = "all"
    kind: str = "greater"


_CLAIMS: dict[str, tuple[Comparison, ...]] = {
    "multi_model_exits": (Comparison("multi_model", "early_exit", "exits"),),
    "early_exit_cascade": (Comparison("early_exit", "multi_model", "area"),),
    "sweet_early_exits": (Comparison("sweet", "early_exit", "exits", "early"),),
    "sweet_fast": (
        Comparison("sweet", "early_exit", "speedup", "fast"),
        Comparison("sweet", "multi_model", "speedup", "fast"),
    ),
    "sweet_slow": (Comparison("sweet", "early_exit", "speedup", "slow", "level"),),
}


@dataclasses.dataclass(frozen=True)
class Subject:
    """What findings are about: one setting, or the average over tasks.

    Attributes:
        bases: per label of a method, the method: `sweet` of `sweet(a=0.2)`.
        num_exits: E.
        targets: wanted speed-ups.
        criterion: of cascades.
        subtract_fn: maps two labels to the sample of their differences; empty where
            they share no seed.
    """

    bases: Mapping[str, str]
    num_exits: int
    targets: tuple[float, ...]
    criterion: str
    subtract_fn: Callable[[str, str], Sample]

    def select(self, what: str, part: str) -> list[int]:
        """Returns the exits, or positions of speed-ups, that a comparison is about.

        The early exits are the first half, rounded down and exit 0 among them; the
        late ones the others, the last among them.
        """
        if what == "area":
            return [0]
        if what == "speedup":
            within = {"fast": lambda s: s >= FAST, "slow": lambda s: s <= SLOW}[part]
            return [k for k, target in enumerate(self.targets) if within(target)]
        exits, half = list(range(self.num_exits)), self.num_exits // 2
        return {"all": exits, "early": exits[: max(1, half)], "late": exits[half:]}[
            part
        ]


def make_findings(subject: Subject) -> list[dict[str, Any]]:
    """Returns one finding per claim whose methods are there.

    A finding has a `claim`, its `method` where the claim is about one that varies, a
    `verdict`, its `comparisons` (each with a verdict, a difference and intervals) and,
    for a claim about exits, the same for each of them in `by_exit`. A claim of several
    comparisons held if all did, and did not if one did not.
    """
    claims = [(claim, None, parts) for claim, parts in _CLAIMS.items()]
    claims += [
        (
            "seam",
            label,
            (
                Comparison(label, "sweet", "exits", "early", "no_worse"),
                Comparison(label, "early_exit", "exits", "late", "no_worse"),
            ),
        )
        for label, base in subject.bases.items()
        if base == "sweet" and label != "sweet"
    ]
    findings = []
    for claim, label, parts in claims:
        compared = [_compare(subject, part) for part in parts]
        measured = [row for row in compared if row is not None]
        if len(measured) < len(parts):
            continue
        verdicts = [row["verdict"] for row in measured]
        findings.append(
            {
                "claim": claim,
                "method": label,
                "verdict": next((v for v in _BY_WEIGHT if v in verdicts), "held"),
                "comparisons": measured,
                "by_exit": [
                    _compare(subject, part, [i])
                    for part, row in zip(parts, measured, strict=True)
                    if part.what == "exits"
                    for i in row["which"]
                ],
            }
        )
    return findings


def decide(interval: Sequence[float] | None, kind: str) -> str:
    """Returns `held`, `did not hold`, `undecided`, or `no interval`.

    Args:
        interval: of a difference, in score; None with one seed.
        kind: `greater` is shown by an interval above 0, `level` by one within `MARGIN`
            of 0, `no_worse` by one above -`MARGIN`. What is not shown is refuted by an
            interval below 0, and `level` by any that excludes 0.
    """
    if interval is None:
        return "no interval"
    low, high = interval
    shown, refuted = {
        "greater": (low > 0, high < 0),
        "level": (low > -MARGIN and high < MARGIN, low > 0 or high < 0),
        "no_worse": (low > -MARGIN, high < 0),
    }[kind]
    if shown:
        return "held"
    return "did not hold" if refuted else "undecided"


def _compare(
    subject: Subject, comparison: Comparison, entries: Sequence[int] | None = None
) -> dict[str, Any] | None:
    """Returns a comparison with its numbers, None where it was not measured.

    Args:
        subject: what it is about.
        comparison: of two methods.
        entries: exits to compare at, None: those of the comparison's part.
    """
    ours, theirs, what, part, kind = comparison
    if not {ours, theirs} <= subject.bases.keys():
        return None
    name = _NAMES[what].format(subject.criterion)
    sample = subject.subtract_fn(ours, theirs)
    wanted = subject.select(what, part) if entries is None else entries
    # A speed-up that some seed does not reach has no difference.
    reached = [k for k in wanted if describe_difference(sample, name, [k])]
    difference = describe_difference(sample, name, reached) if reached else None
    if difference is None:
        return None
    which = reached if what == "exits" else [subject.targets[k] for k in reached]
    return {
        "of": ours,
        "minus": theirs,
        "what": what,
        "part": part,
        "which": [] if what == "area" else which,
        "kind": kind,
        "verdict": decide(difference["over_seeds_and_rows"], kind),
        "seeds": list(sample),
        **difference,
    }
