"""Verdicts on the paper's claims, and on scaled seams, from confidence intervals.

A verdict depends on the interval over seeds and test rows. Intervals are not corrected
for multiple comparisons: at 95 %, one of twenty true zero differences is expected to be
outside.

A claim may hold on average and fail at an exit, so it has a verdict at each of its
exits or speed-ups and one for the mean; an average over tasks also lists the verdicts
of the tasks.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sweet_jax.study.estimates import Sample, describe_difference

# Speed-ups of at least FAST are fast, those of at most SLOW are slow.
FAST, SLOW = 3.0, 2.0
# Scores that differ by less count as level, because no interval can show equality. One
# point is less than the effects that the paper reports (1.1 and 2.3).
MARGIN = 0.01
# The numbers that comparisons use.
_NAMES = {"exits": "exits", "area": "area/{}", "speedup": "at_cost/{}"}
HELD, REFUTED, UNDECIDED, NO_INTERVAL = "held", "refuted", "undecided", "no interval"


class Comparison(NamedTuple):
    """A difference of two methods within a claim.

    Attributes:
        ours: label of a method.
        theirs: label of the method that is subtracted.
        what: `exits` (mean score of exits alone), or for the cascade by the first
            criterion `area` or `speedup` (mean score at the costs of speed-ups, the
            same for both methods).
        part: for exits `all`, `early` or `late`; for speed-ups `fast` or `slow`.
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
    """The data for findings: one setting, or the average over tasks.

    Attributes:
        bases: label -> method: `sweet` for `sweet(a=0.2)`.
        num_exits: number of exits E.
        targets: target speed-ups.
        criterion: exit criterion of the cascades.
        subtract_fn: maps two labels to the sample of their differences, which is empty
            if they share no seed.
    """

    bases: Mapping[str, str]
    num_exits: int
    targets: tuple[float, ...]
    criterion: str
    subtract_fn: Callable[[str, str], Sample]

    def select(self, what: str, part: str) -> list[int]:
        """Returns the exits, or positions of speed-ups, of a comparison.

        The early exits are the first half, rounded down but at least exit 0; the late
        ones are the others, at least the last. An area uses all speed-ups.
        """
        if what == "area":
            return list(range(len(self.targets)))
        if what == "speedup":
            within = {"fast": lambda s: s >= FAST, "slow": lambda s: s <= SLOW}[part]
            return [k for k, target in enumerate(self.targets) if within(target)]
        exits, half = list(range(self.num_exits)), self.num_exits // 2
        return {"all": exits, "early": exits[: max(1, half)], "late": exits[half:]}[
            part
        ]


def make_findings(subject: Subject) -> list[dict[str, Any]]:
    """Returns one finding per claim whose methods were measured.

    A finding has a `claim`, the `method` if the claim is made for several methods, and
    `comparisons`. Each comparison has a verdict, a difference and intervals for the
    mean over its exits or speed-ups, or for the area, and in `points` the same for each
    exit or speed-up. `verdict` combines all points and means, `mean_verdict` only the
    means. `by_task` is empty: see `add_tasks`. A claim holds if all its comparisons
    hold, and is refuted if one is refuted.
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
        compared = [row for part in parts if (row := _compare(subject, part))]
        points = [point for row in compared for point in row["points"]]
        verdict = combine(row["verdict"] for row in (*points, *compared))
        if len(compared) < len(parts) and verdict != REFUTED:
            continue
        findings.append(
            {
                "claim": claim,
                "method": label,
                "verdict": verdict,
                "mean_verdict": combine(row["verdict"] for row in compared),
                "comparisons": compared,
                "by_task": {},
            }
        )
    return findings


def add_tasks(
    average: Sequence[dict[str, Any]], tasks: Mapping[str, Sequence[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Returns the findings of an average over tasks with the tasks' verdicts.

    A claim that is refuted on one task is refuted. If the tasks share no seed, a claim
    has verdicts of tasks but no comparisons here.

    Args:
        average: findings of the average.
        tasks: findings by task.
    """
    added = {(row["claim"], row["method"]): {**row, "by_task": {}} for row in average}
    for task, findings in tasks.items():
        for finding in findings:
            empty = {
                "verdict": NO_INTERVAL, "mean_verdict": NO_INTERVAL, "comparisons": [],
                "by_task": {},
            }  # fmt: skip
            key = (finding["claim"], finding["method"])
            row = added.setdefault(key, {**finding, **empty})
            row["by_task"][task] = finding["verdict"]
            if finding["verdict"] == REFUTED:
                row["verdict"] = REFUTED
    return list(added.values())


def combine(verdicts: Iterable[str]) -> str:
    """Returns the combined verdict: held if all are held, refuted if one is refuted."""
    found = set(verdicts)
    return next((v for v in (REFUTED, NO_INTERVAL, UNDECIDED) if v in found), HELD)


def decide(interval: Sequence[float] | None, kind: str) -> str:
    """Returns `held`, `refuted`, `undecided`, or `no interval`.

    Args:
        interval: interval of a difference of scores; None with one seed.
        kind: `greater` holds if the interval is above 0, `level` if it is within
            `MARGIN` of 0, `no_worse` if it is above -`MARGIN`. If it does not hold, an
            interval below 0 refutes it; `level` is refuted if 0 is outside.
    """
    if interval is None:
        return NO_INTERVAL
    low, high = interval
    shown, refuted = {
        "greater": (low > 0, high < 0),
        "level": (low > -MARGIN and high < MARGIN, low > 0 or high < 0),
        "no_worse": (low > -MARGIN, high < 0),
    }[kind]
    if shown:
        return HELD
    return REFUTED if refuted else UNDECIDED


def _compare(subject: Subject, comparison: Comparison) -> dict[str, Any] | None:
    """Returns a comparison with its numbers, None if it was not measured."""
    ours, theirs, what, part, kind = comparison
    if not {ours, theirs} <= subject.bases.keys():
        return None
    sample = subject.subtract_fn(ours, theirs)

    def measure(what: str, entries: Sequence[int]) -> dict[str, Any] | None:
        name = _NAMES[what].format(subject.criterion)
        difference = describe_difference(sample, name, entries)
        if difference is None:
            return None
        of_speedups = [subject.targets[k] for k in entries if what == "speedup"]
        return {
            "of": ours,
            "minus": theirs,
            "what": what,
            "part": part,
            "which": list(entries) if what == "exits" else of_speedups,
            "kind": kind,
            "verdict": decide(difference["over_seeds_and_rows"], kind),
            "seeds": list(sample),
            **difference,
        }

    is_area = what == "area"
    wanted = subject.select(what, part)
    measured = {k: measure("speedup" if is_area else what, [k]) for k in wanted}
    # A speed-up that a seed does not reach has no difference.
    points = {k: point for k, point in measured.items() if point is not None}
    if not points and not is_area:
        return None
    whole = measure(what, [0] if is_area else list(points))
    return None if whole is None else {**whole, "points": list(points.values())}
