"""The paper's claims, and the question of the seam, as verdicts from intervals.

A verdict rests on the interval over seeds and test rows. Every interval is at its level
by itself: of twenty differences that are none, one is expected to look decided.

A mean over exits can hold while an exit does not, so a claim has a verdict at each of
its exits or speed-ups, and that of the mean beside them; an average over tasks has the
verdicts of the tasks.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sweet_jax.study.estimates import Sample, describe_difference

# From here up a speed-up is fast, and up to here slow; between them neither.
FAST, SLOW = 3.0, 2.0
# Scores that differ by less are level. That two methods are equal no interval can show;
# a point is below the effects that the paper reports (1.1 and 2.3).
MARGIN = 0.01
# The numbers that a comparison is of.
_NAMES = {"exits": "exits", "area": "area/{}", "speedup": "at_cost/{}"}
HELD, REFUTED, UNDECIDED, NO_INTERVAL = "held", "refuted", "undecided", "no interval"


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
        late ones the others, the last among them. An area is about all speed-ups.
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
    """Returns one finding per claim whose methods are there.

    A finding has a `claim`, its `method` where the claim is about one that varies, and
    its `comparisons`: each with a verdict, a difference and intervals of the mean over
    its exits or speed-ups, or of the area, and the same for every one of them in
    `points`. Its `verdict` is that of all points and means together, `mean_verdict`
    that of the means alone. `by_task` is empty: see `add_tasks`. A claim of several
    comparisons needs all of them, but one is enough to refute it.
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

    A claim that one task refutes is refuted. A claim that only tasks have, because
    they share no seed, has no comparisons here.

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
    """Returns the verdict of several: held if all are, refuted if one is."""
    found = set(verdicts)
    return next((v for v in (REFUTED, NO_INTERVAL, UNDECIDED) if v in found), HELD)


def decide(interval: Sequence[float] | None, kind: str) -> str:
    """Returns `held`, `refuted`, `undecided`, or `no interval`.

    Args:
        interval: of a difference, in score; None with one seed.
        kind: `greater` is shown by an interval above 0, `level` by one within `MARGIN`
            of 0, `no_worse` by one above -`MARGIN`. What is not shown is refuted by an
            interval below 0, and `level` by any that excludes 0.
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
    """Returns a comparison with its numbers, None where it was not measured."""
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
    # A speed-up that some seed does not reach has no difference.
    points = {k: point for k, point in measured.items() if point is not None}
    if not points and not is_area:
        return None
    whole = measure(what, [0] if is_area else list(points))
    return None if whole is None else {**whole, "points": list(points.values())}
