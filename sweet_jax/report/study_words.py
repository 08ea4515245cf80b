"""What a study shows, in words: the paper's claims and their verdicts, from numbers."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from sweet_jax.report.study_record import View, list_headlines

_CLAIMS = {
    "multi_model_exits": "multi_model beats early_exit exit by exit",
    "early_exit_cascade": "the cascade of early_exit beats that of multi_model",
    "sweet_early_exits": "sweet beats early_exit at the early exits",
    "sweet_fast": "sweet beats both at fast speeds",
    "sweet_slow": "sweet is level with early_exit at slow speeds",
    "seam": (
        "{method} is no worse than sweet at the early exits and no worse than"
        " early_exit at the late ones"
    ),
}
_OF_THE_PAPER = tuple(claim for claim in _CLAIMS if claim != "seam")
_NO_INTERVAL = "no interval"
# A verdict after the number of claims that got it.
_COUNTED = {
    "held": "held",
    "did not hold": "did not hold",
    "undecided": "undecided",
    "no verdict": "without a verdict",
}


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A claim, its verdict and the numbers behind it.

    Attributes:
        claim: in words, what was compared within.
        verdict: `held`, `did not hold`, `undecided` or `no verdict`.
        numbers: in parentheses.
    """

    claim: str
    verdict: str
    numbers: str

    @property
    def text(self) -> str:
        """The sentence without its full stop."""
        return f"{self.claim}: {self.verdict} ({self.numbers})"


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """What one view shows.

    Attributes:
        lead: where, and how many claims got which verdict.
        sentences: one per claim.
    """

    lead: str
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        """The whole paragraph."""
        if not self.sentences:
            return self.lead
        return f"{self.lead} {'; '.join(s.text for s in self.sentences)}."


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
    """Returns the claim in words, with the exits or speeds that it is about."""
    text = _CLAIMS[finding["claim"]].format(method=finding["method"])
    first = finding["comparisons"][0]
    if first["what"] == "area":
        text += " (area under the curve)"
    elif first["part"] != "all" and finding["claim"] != "seam":
        text += f" ({describe_which(first)})"
    if first["kind"] != "greater":
        text += f", to within {100 * record['margin']:g} point"
    return text


def describe_which(comparison: dict[str, Any]) -> str:
    """Returns the exits or speed-ups that a comparison is about."""
    which = comparison["which"]
    if comparison["what"] == "area":
        return "area"
    if comparison["what"] == "speedup":
        return ", ".join(f"{target:g}x" for target in which)
    return f"{'exits' if len(which) > 1 else 'exit'} {', '.join(map(str, which))}"


def show_verdict(verdict: str) -> str:
    """Returns the verdict as shown to people."""
    return "no verdict" if verdict == _NO_INTERVAL else verdict


def _describe_view(record: dict[str, Any], view: View) -> Paragraph:
    findings = view.content["findings"]
    sentences = tuple(
        Sentence(
            describe_claim(finding, record),
            show_verdict(finding["verdict"]),
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
    verdicts = collections.Counter(
        show_verdict(f["verdict"]) for f in findings if f["claim"] in _OF_THE_PAPER
    )
    if not findings:
        return Paragraph(
            f"{lead}, no claim of the paper can be judged: it needs two of early_exit,"
            " multi_model and sweet with a seed in common.",
            (),
        )
    if not verdicts:
        return Paragraph(f"{lead}:", sentences)
    total = sum(verdicts.values())
    lead += f", {total} of the paper's claims {'was' if total == 1 else 'were'} judged"
    if all(f["verdict"] == _NO_INTERVAL for f in findings):
        counts = "none with a verdict: of one seed no interval over seeds exists"
    else:
        counts = ", ".join(
            f"{verdicts[verdict]} {words}"
            for verdict, words in _COUNTED.items()
            if verdict in verdicts
        )
    return Paragraph(f"{lead} ({counts}):", sentences)


def _describe_numbers(finding: dict[str, Any], view: View) -> str:
    comparisons = finding["comparisons"]
    texts = []
    for comparison in comparisons:
        text = f"difference {format_points(comparison['mean'])} points, "
        interval = comparison["over_seeds_and_rows"]
        if interval is None:
            text += "one seed: no interval"
        else:
            text += f"{view.level} interval {format_interval(interval)}"
        if len(comparisons) > 1:
            against = f"against {comparison['minus']}"
            if finding["claim"] == "seam":
                against += f" at {describe_which(comparison)}"
            text = f"{against} {text}"
        tasks = view.find_tasks(comparison["of"], comparison["minus"])
        if tasks != view.content["tasks"]:
            text = f"over {', '.join(tasks)} alone {text}"
        texts.append(text)
    if finding["by_exit"] and len(comparisons) == 1:
        by_verdict: dict[str, list[str]] = {}
        for row in finding["by_exit"]:
            by_verdict.setdefault(row["verdict"], []).append(str(row["which"][0]))
        if set(by_verdict) != {_NO_INTERVAL}:
            parts = (f"{v} at {', '.join(exits)}" for v, exits in by_verdict.items())
            texts.append(f"by exit: {', '.join(parts)}")
    return "; ".join(texts)
