"""The measured cells of a study, by encoder, training size and task.

Everything is measured from the small files of the cells (results.json and the logit
banks of the test rows), so that a copy of those gives the same numbers, and a study
that is half done gives what it has.
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
        setting: what they share.
        cells: per label of a method and seed.
        samples: the same, measured.
    """

    setting: Setting
    cells: dict[str, dict[int, FinishedCell]]
    samples: dict[str, Sample]

    def first_cell(self, label: str) -> FinishedCell:
        """Returns any cell of a method, for what all its seeds share."""
        return next(iter(self.cells[label].values()))


@dataclasses.dataclass(frozen=True)
class MeasuredStudy:
    """A study whose cells are measured.

    Attributes:
        study: what its folder holds; cells that could not be measured are failed.
        groups: by (encoder, training size) and task, in the plan's order.
        num_draws: bootstrap draws of test rows.
    """

    study: Study
    groups: dict[tuple[str, int], dict[str, TaskCells]]
    num_draws: int


def measure_study(folder: Path, num_draws: int = NUM_DRAWS) -> MeasuredStudy:
    """Measures the finished cells of a study.

    Args:
        folder: of the study, with plan.json and cells/.
        num_draws: bootstrap draws of test rows; at most 200 where a registered metric
            is called for each.

    Raises:
        StudyError: there is no plan, or it cannot be read. Cells that cannot be read
            are listed as failed.
    """
    study = read_study(folder)
    used = {cell.results["metric"] for cell in study.finished}
    if any(metric in METRICS and reads_rows(metric) for metric in used):
        # For all: draws of several tasks are averaged.
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
