"""Reads study.json, and says which views of it there are: tasks, and their average."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sweet_jax.report import tables
from sweet_jax.report.files import ReportError
from sweet_jax.system.files import read_object, show

RECORD = "study.json"
SCHEMA = 3
_FIELDS = frozenset(
    (
        "name", "level", "num_draws", "fast_from", "slow_to", "margin", "num_planned",
        "failed", "missing", "choices", "groups",
    )
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class View:
    """One task under one encoder and training size, or the average over tasks.

    Attributes:
        content: methods, differences and findings.
        encoder: its name.
        train_size: training examples.
        metric: name of the score as shown to people.
        is_average: it is over several tasks.
        level: of the intervals, as shown to people.
        by_task: of an average, the views of its tasks.
    """

    content: dict[str, Any]
    encoder: str
    train_size: int
    metric: str
    is_average: bool
    level: str
    by_task: tuple["View", ...] = ()

    @property
    def subject(self) -> str:
        """The task, or that it is an average."""
        if self.is_average:
            return f"average of {len(self.content['tasks'])} tasks"
        return self.content["task"]

    @property
    def title(self) -> str:
        """What tells the view from all others."""
        return f"{self.subject}, {self.encoder}, {self.train_size:,} training examples"

    @property
    def criterion(self) -> str:
        """The exit criterion of the cascades that are compared."""
        return self.content["criteria"][0]

    @property
    def methods(self) -> list[dict[str, Any]]:
        """What was measured of each method."""
        return self.content["methods"]

    @property
    def is_partial(self) -> bool:
        """Whether some method lacks a task of the average: not all rows are alike."""
        tasks = self.content["tasks"]
        return any(
            row["tasks"] != tasks
            for row in (*self.methods, *self.content["differences"])
        )

    def find_tasks(self, ours: str, theirs: str) -> list[str]:
        """Returns the tasks over which two methods were compared."""
        [tasks] = [
            pair["tasks"]
            for pair in self.content["differences"]
            if {pair["of"], pair["minus"]} == {ours, theirs}
        ]
        return tasks


def read_study_record(folder: Path) -> dict[str, Any]:
    """Reads and checks study.json.

    Raises:
        ReportError: it is not there, damaged, incomplete or of a newer schema.
    """
    path = folder / RECORD
    if not path.is_file():
        raise ReportError(
            f"{folder} has no {RECORD}: python -m sweet_jax study makes it"
        )
    record = read_object(path, "python -m sweet_jax study makes it again")
    if record.get("schema") != SCHEMA:
        raise ReportError(
            f"{path} has schema {record.get('schema')}, this version reads {SCHEMA}:"
            " repeat python -m sweet_jax study"
        )
    if missing := sorted(_FIELDS - record.keys()):
        raise ReportError(
            f"{path} lacks {', '.join(missing)}: repeat python -m sweet_jax study"
        )
    return record


def show_names(value: Any) -> Any:
    """Returns JSON with all texts as a terminal may have them.

    The files of a study may come from anyone, and their names of tasks, encoders,
    methods and cells stand in every output.
    """
    if isinstance(value, str):
        return show(value)
    if isinstance(value, list):
        return [show_names(part) for part in value]
    if isinstance(value, dict):
        return {show(name): show_names(part) for name, part in value.items()}
    return value


def list_views(record: dict[str, Any]) -> list[View]:
    """Returns the average, where there is one, and the tasks of every group."""
    return [view for group in record["groups"] for view in _views(record, group)]


def list_headlines(record: dict[str, Any]) -> list[View]:
    """Returns per group the average, or its tasks where there is none."""
    headlines = []
    for group in record["groups"]:
        views = list(_views(record, group))
        headlines += views[:1] if views[0].is_average else views
    return headlines


def _views(record: dict[str, Any], group: dict[str, Any]) -> Iterator[View]:
    metrics = {tables.metric_name(setting) for setting in group["settings"]}
    where = (group["encoder"], group["train_size"])
    level = f"{100 * record['level']:g} %"
    tasks = [
        View(setting, *where, tables.metric_name(setting), False, level)
        for setting in group["settings"]
    ]
    if group["average"] is not None:
        # Scores of different kinds are averaged as they are, and called what they are.
        metric = metrics.pop() if len(metrics) == 1 else "score"
        yield View(group["average"], *where, metric, True, level, tuple(tasks))
    yield from tasks
