"""What a study shows, in words: the paper's claims and their verdicts, from numbers."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sweet_jax.report.study_record import View, list_headlines

_CLAIMS = {
    "multi_model_exits": "multi_model beats early_exit, each exit alone",
    "early_exit_cascade": "the cascade of early_exit beats that of multi_model",
    "sweet_early_exits": "sweet beats early_exit at the early exits",
    "sweet_fast": "sweet beats both at fast speeds",
    "sweet_slow": "sweet is level with early_exit at slow speeds, to within {margin}",
    "seam": (
        "{method} is no worse than sweet at the early exits and no worse than"
        " early_exit at the late ones, to within {margin}"
    ),
}
_OF_THE_PAPER = tuple(claim for claim in _CLAIMS if claim != "seam")
# Their comparisons are with one method and with another.
_AGAINST_TWO = ("sweet_fast", "seam")
_NO_INTERVAL = "no interval"
# A verdict after the number of claims that got it: what was refuted comes first.
_COUNTED = {
    "refuted": "refuted",
    "held": "held",
    "undecided": "undecided",
    "no verdict": "without a verdict",
}


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A claim, its verdict and the numbers behind it.

    Attributes:
        claim: in words, what was compared within.
        verdict: of all its exits or speed-ups together.
        numbers: the verdict, difference and interval of each exit or speed-up, and of
            their mean; what is refuted comes first.
    """

    claim: str
    verdict: str
    numbers: str

    @property
    def text(self) -> str:
        """The sentence without its full stop."""
        return f"{self.claim}: {self.verdict}; {self.numbers}"


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """What one view shows.

    Attributes:
        lead: where, and how many claims got which verdict.
        sentences: one per claim, refuted ones first.
    """

    lead: str
    sentences: tuple[Sentence, ...]


def format_points(difference: float) -> str:
    """Returns a difference of scores in points, with its sign: `+1.2`."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def format_interval(interval: Sequence[float] | None) -> str:
    """Returns `-0.3 to +2.8`, `-` where there is none.

    A bound near 0 keeps the digit that tells on which side it lies: `+0.02`.
    """
    if interval is None:
        return "-"
    texts = [
        f"{100 * bound:+.1g}" if 0 < abs(bound) < 0.0005 else format_points(bound)
        for bound in interval
    ]
    return " to ".join(texts)


def describe_study(record: dict[str, Any]) -> list[Paragraph]:
    """Returns a paragraph per headline view, the state of the cells in the first."""
    views = list_headlines(record)
    paragraphs = [_describe_view(record, view) for view in views]
    cells = describe_cells(record)
    if not paragraphs:
        return [Paragraph(f"No cell is finished. {cells}".strip(), ())]
    if cells:
        first = paragraphs[0]
        paragraphs[0] = dataclasses.replace(first, lead=f"{cells} {first.lead}")
    return paragraphs


def describe_cells(record: dict[str, Any]) -> str:
    """Returns how much of the study is not there; nothing if all is."""
    parts = [
        f"{len(record[kind])} {words}"
        for kind, words in (("failed", "failed"), ("missing", "not yet run"))
        if record[kind]
    ]
    if not parts:
        return ""
    return (
        f"Of {record['num_planned']} cells {' and '.join(parts)}: averages are over the"
        " seeds and tasks that are there."
    )


def describe_claim(finding: dict[str, Any], record: dict[str, Any]) -> str:
    """Returns the claim in words."""
    return _CLAIMS[finding["claim"]].format(
        method=finding["method"], margin=f"{100 * record['margin']:g} point"
    )


def describe_which(row: dict[str, Any]) -> str:
    """Returns where a difference was measured: `exit 0`, `mean of 3x, 4x`, `area`."""
    if row["what"] == "area":
        return "area"
    is_speedup, which = row["what"] == "speedup", row["which"]
    text = ", ".join(f"{target:g}x" if is_speedup else str(target) for target in which)
    if not is_speedup:
        text = f"exit{'s' if len(which) > 1 else ''} {text}"
    return f"mean of {text}" if "points" in row else text


def show_verdict(verdict: str) -> str:
    """Returns the verdict as shown to people."""
    return "no verdict" if verdict == _NO_INTERVAL else verdict


def _describe_view(record: dict[str, Any], view: View) -> Paragraph:
    findings = sorted(view.content["findings"], key=_is_not_refuted)
    sentences = tuple(
        Sentence(
            describe_claim(finding, record),
            _describe_verdict(finding),
            _describe_numbers(finding, view),
        )
        for finding in findings
    )
    tasks = view.content["tasks"]
    where = f"averaged over {', '.join(tasks)}" if view.is_average else f"on {tasks[0]}"
    lead = (
        f"{where[0].upper()}{where[1:]} ({view.encoder}, {view.train_size:,} training"
        f" examples, {view.metric})"
    )
    if not findings:
        return Paragraph(
            f"{lead}, no claim of the paper can be judged: it needs two of early_exit,"
            " multi_model and sweet with a seed in common.",
            (),
        )
    lead += (
        f", cascades by {view.criterion}, differences in points with their {view.level}"
        " intervals"
    )
    judged = [f for f in findings if f["claim"] in _OF_THE_PAPER]
    if not judged:
        return Paragraph(f"{lead}:", sentences)
    total = len(judged)
    lead += f"; {total} of the paper's claims {'was' if total == 1 else 'were'} judged"
    if all(f["verdict"] == _NO_INTERVAL for f in findings):
        counts = "none with a verdict: of one seed no interval over seeds exists"
    else:
        counts = _count(f["verdict"] for f in judged)
        counts += f"; by the means alone {_count(f['mean_verdict'] for f in judged)}"
    return Paragraph(f"{lead} ({counts}):", sentences)


def _is_not_refuted(row: dict[str, Any]) -> bool:
    return row["verdict"] != "refuted"


def _count(verdicts: Iterable[str]) -> str:
    counts = collections.Counter(map(show_verdict, verdicts))
    return ", ".join(
        f"{counts[v]} {words}" for v, words in _COUNTED.items() if v in counts
    )


def _describe_verdict(finding: dict[str, Any]) -> str:
    """Returns the verdict; one that held says so of every exit it is about."""
    compared = finding["comparisons"]
    if finding["verdict"] != "held" or any(row["what"] != "exits" for row in compared):
        return show_verdict(finding["verdict"])
    which = "early exit" if [row["part"] for row in compared] == ["early"] else "exit"
    return f"held at every {which}"


def _describe_numbers(finding: dict[str, Any], view: View) -> str:
    rows = [(view, row) for row in _list_rows(finding)]
    # What a task refutes an average over tasks must not hide.
    rows += [
        (task, row)
        for task in view.by_task
        for found in task.content["findings"]
        if (found["claim"], found["method"]) == (finding["claim"], finding["method"])
        for row in _list_rows(found)
        if row["verdict"] == "refuted"
    ]
    rows.sort(key=lambda item: _is_not_refuted(item[1]))
    texts = [
        _describe_row(row, shown, view, finding["claim"] in _AGAINST_TWO)
        for shown, row in rows
    ]
    if finding["by_task"]:
        by_task = (f"{t} {show_verdict(v)}" for t, v in finding["by_task"].items())
        texts.append(f"by task: {', '.join(by_task)}")
    return "; ".join(texts)


def _list_rows(finding: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields each exit or speed-up, and after those of a comparison their mean."""
    for comparison in finding["comparisons"]:
        yield from comparison["points"]
        # The mean of one exit is that exit.
        if comparison["what"] == "area" or len(comparison["points"]) > 1:
            yield comparison


def _describe_row(
    row: dict[str, Any], shown: View, headline: View, tells_against: bool
) -> str:
    """Returns `exit 0: refuted, -1.4 (-2.3 to -0.5)`; the mean is called the mean."""
    text = describe_which(row)
    if "points" in row:
        text = f"the {'area' if row['what'] == 'area' else 'mean'}'s verdict"
    if tells_against:
        text += f" against {row['minus']}"
    if shown is not headline:
        text += f" on {shown.subject}"
    tasks = shown.find_tasks(row["of"], row["minus"])
    if tasks != shown.content["tasks"]:
        text += f" over {', '.join(tasks)} alone"
    interval = row["over_seeds_and_rows"]
    numbers = "one seed: no interval" if interval is None else format_interval(interval)
    verdict = show_verdict(row["verdict"])
    return f"{text}: {verdict}, {format_points(row['mean'])} ({numbers})"
