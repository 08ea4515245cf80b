"""The measured cells of a study, by encoder, training size and task.

Everything is measured from small files of the cells (results.json and the logit banks
of the test rows), so a copy of these files gives the same numbers. A partly finished
study can be measured, too.
"""

import dataclasses
from pathlib import Path

from sweet_jax.evaluation.metrics import reads_rows
from sweet_jax.evaluation.statistics import NUM_DRAWS, NUM_SLOW_DRAWS
from sweet_jax.settings.registries import METRICS
from sweet_jax.study.estimates import Sample
from sweet_jax.study.folder import CellError, FinishedCell, Study, read_study
from sweet_jax.study.measure import Setting, measure_cell


@dataclasses.dataclass(frozen=True)
class TaskCells:
    """The measured cells of one task under one encoder and training size.

    Attributes:
        setting: values that they share.
        cells: cells by method label and seed.
        samples: measured cells by method label and seed.
    """

    setting: Setting
    cells: dict[str, dict[int, FinishedCell]]
    samples: dict[str, Sample]

    def first_cell(self, label: str) -> FinishedCell:
        """Returns a cell of a method, for values that all its seeds share."""
        return next(iter(self.cells[label].values()))


@dataclasses.dataclass(frozen=True)
class MeasuredStudy:
    """A study with measured cells.

    Attributes:
        study: content of its folder; cells that cannot be measured are failed.
        groups: cells by (encoder, training size) and task, in the plan's order.
        num_draws: number of bootstrap draws of test rows.
    """

    study: Study
    groups: dict[tuple[str, int], dict[str, TaskCells]]
    num_draws: int


def measure_study(folder: Path, num_draws: int = NUM_DRAWS) -> MeasuredStudy:
    """Measures the finished cells of a study.

    Args:
        folder: folder of the study, with plan.json and cells/.
        num_draws: number of bootstrap draws of test rows; at most 200 if a registered
            metric must be called for each.

    Raises:
        StudyError: there is no plan, or it is unreadable. Unreadable cells are listed
            as failed.
    """
    study = read_study(folder)
    used = {cell.results["metric"] for cell in study.finished}
    if any(metric in METRICS and reads_rows(metric) for metric in used):
        # For all tasks, because draws are averaged over tasks.
        num_draws = min(num_draws, NUM_SLOW_DRAWS)
    groups: dict[tuple[str, int], dict[str, TaskCells]] = {}
    for cell in study.finished:
        entry = cell.entry
        tasks = groups.setdefault((entry.encoder, entry.train_size), {})
        known = tasks.get(entry.task)
        try:
            known = known or TaskCells(Setting.from_cell(cell, num_draws), {}, {})
            measured = measure_cell(cell, known.setting)
        except CellError as error:
            study.failed[entry.name] = str(error)
            continue
        tasks[entry.task] = known
        known.cells.setdefault(entry.method, {})[entry.seed] = cell
        known.samples.setdefault(entry.method, {})[entry.seed] = measured
    measured_groups = {key: tasks for key, tasks in groups.items() if tasks}
    return MeasuredStudy(study, measured_groups, num_draws)
