"""The plan of a study: its runs (cells) with all their settings.

Every cell is a run of `sweet_jax.main` in its own work directory. Cells with the same
seed, task and size share rows, splits, order and fresh weights, so methods are compared
in pairs.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sweet_jax.settings.fields import (
    AUTO,
    Settings,
    StudySettings,
    compute_digest,
    to_dict,
    training_fields,
)
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.rules import SettingsError

# Settings that may differ between the cells of one study.
VARIED = frozenset(
    {
        "method",
        "seed",
        "data.task",
        "data.metric",
        "data.max_train_examples",
        "encoder.name",
    }
)

SCORE = "score"
LEARNING_RATES = "learning_rates"


class LearningRates(NamedTuple):
    """Peak learning rates of a run; None: those of the study's base."""

    encoder: float | None = None
    exits: float | None = None

    @property
    def name(self) -> str:
        """Their part of the name of a cell."""
        parts = (("r", self.encoder), ("e", self.exits))
        return "".join(f"-{mark}{rate:g}" for mark, rate in parts if rate is not None)


@dataclasses.dataclass(frozen=True)
class Group:
    """Cells that differ only in their seed, after learning rates are chosen.

    Attributes:
        task: value of `data.task`.
        metric: value of `data.metric`.
        encoder: value of `encoder.name`.
        train_size: value of `data.max_train_examples`.
        method: label of the method, such as `sweet(a=0.2)`.
    """

    task: str
    metric: str
    encoder: str
    train_size: int
    method: str

    @property
    def name(self) -> str:
        """The common beginning of the names of its cells."""
        task, encoder = Path(self.task).name, Path(self.encoder).name
        size = f"-n{self.train_size}" if self.train_size else ""
        # Labels with one share per seam contain slashes, which folder names cannot.
        method = self.method.replace("/", "+")
        return f"{task}-{encoder}{size}-{method}"

    def make_settings(
        self, base: Mapping[str, Any], seed: int, rates: LearningRates
    ) -> Settings:
        """Returns the settings of a cell.

        Args:
            base: fields of the study's config for all runs, with nested sections.
            seed: seed of the run.
            rates: learning rates of the run.

        Raises:
            SettingsError: the base contradicts the method.
        """
        fields: dict[str, Any] = {
            "data.task": self.task,
            "data.metric": self.metric,
            "encoder.name": self.encoder,
            "data.max_train_examples": self.train_size,
            "seed": seed,
            "method": self.method,
        }
        if rates.encoder is not None:
            fields["optim.encoder_learning_rate"] = rates.encoder
        if rates.exits is not None:
            fields["optim.exit_learning_rate"] = rates.exits
        nested = {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in base.items()
        }
        for name, value in fields.items():
            section, _, field = name.rpartition(".")
            (nested[section] if section else nested)[field] = value
        return from_config_dict(nested)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        group: its task, metric, encoder, size and method.
        seed: seed of the run.
        purpose: `score`, or `learning_rates` for a run that only helps to choose them.
        learning_rates: those that a `learning_rates` cell tries; None: those chosen for
            the group, or without a search those of the base.
    """

    group: Group
    seed: int
    purpose: str = SCORE
    learning_rates: LearningRates | None = None

    @property
    def name(self) -> str:
        """Name of the work directory within the study."""
        rates = self.learning_rates
        suffix = "" if rates is None else rates.name
        return f"{self.group.name}{suffix}-s{self.seed}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study's cells.

    Attributes:
        study: settings of the study.
        base: fields that all cells share, nested; -1 and `auto` are resolved for the
            method of each cell.
        cells: cells in the order of running: first those that choose learning rates,
            then seed by seed, so that an unfinished study compares all methods on fewer
            seeds.
    """

    study: StudySettings
    base: Mapping[str, Any]
    cells: tuple[Cell, ...]

    def select_shard(self) -> tuple[Cell, ...]:
        """Returns the cells of this shard.

        Runs that choose learning rates and runs that use them are in the same shard, so
        shards need no common disk.
        """
        index, count = parse_shard(self.study.shard)
        if any(cell.purpose == LEARNING_RATES for cell in self.cells):
            groups = list(dict.fromkeys(cell.group for cell in self.cells))
            mine = groups[index::count]
            return tuple(cell for cell in self.cells if cell.group in mine)
        # Each round of n cells starts at the next shard, so that a slow method is not
        # always in the same shard.
        return tuple(
            cell
            for k, cell in enumerate(self.cells)
            if (k + k // count) % count == index
        )

    def find_search_cells(self, group: Group) -> tuple[Cell, ...]:
        """Returns the cells that choose the learning rates of a group."""
        return tuple(
            c for c in self.cells if c.group == group and c.purpose == LEARNING_RATES
        )

    def make_settings(self, cell: Cell, chosen: LearningRates) -> Settings:
        """Returns a cell's settings, with the learning rates chosen for its group."""
        return cell.group.make_settings(
            self.base, cell.seed, cell.learning_rates or chosen
        )


def make_plan(base: Settings | Mapping[str, Any], study: StudySettings) -> Plan:
    """Returns the plan of a study, after checking the settings of every cell.

    Args:
        base: fields of the config file without its section `study`.
        study: the section `study`.

    Raises:
        SettingsError: a field of the study is wrong, or contradicts the base.
    """
    if isinstance(base, Settings):
        base = to_dict(base)
    base = {name: base[name] for name in base}
    _check_study(study)
    # With the defaults filled in, since the names of cells contain the training size.
    shared = from_config_dict({**base, "method": study.methods[0]})
    for part in ("encoder", "exit"):
        rate, field = base["optim"][f"{part}_learning_rate"], f"{part}_learning_rates"
        if rate != AUTO and getattr(study, field):
            raise SettingsError(
                f"optim.{part}_learning_rate={rate} would not be used: study.{field}"
                " chooses the rate; drop one of the two"
            )
    searches_rates = study.encoder_learning_rates or study.exit_learning_rates
    if searches_rates and shared.data.calibration_examples == 0:
        raise SettingsError(
            "the study chooses learning rates on labelled calibration rows, and"
            " data.calibration_examples=0 (the default with data.shots) has none: set"
            " it to 4 or more, or set the learning rates in optim"
        )
    tasks = study.tasks or (shared.data.task,)
    metrics = study.metrics or (shared.data.metric,) * len(tasks)
    groups = [
        Group(task, metric, encoder, size, method)
        for (task, metric), encoder, size, method in itertools.product(
            zip(tasks, metrics, strict=True),
            study.encoders or (shared.encoder.name,),
            study.train_sizes or (shared.data.max_train_examples,),
            # The label of the results: 0.20 and 0.2 are the same method.
            [from_config_dict({"method": m}).method_label for m in study.methods],
        )
    ]
    candidates = [
        LearningRates(*pair)
        for pair in itertools.product(
            study.encoder_learning_rates or (None,),
            study.exit_learning_rates or (None,),
        )
        if pair != (None, None)
    ]
    searches = [
        Cell(group, study.learning_rates_seed, LEARNING_RATES, candidate)
        for group in groups
        for candidate in candidates
    ]
    scores = [Cell(group, seed) for seed in study.seeds for group in groups]
    plan = Plan(study, base, (*searches, *scores))
    names = [cell.name for cell in plan.cells]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(
                f"the study has two cells of the name {name}: tasks and encoders need"
                " different folder names, methods and seeds must differ"
            )
        if not _is_text(name):
            raise SettingsError(
                f"the study has a cell of the name {name!r}, which is not UTF-8: rename"
                " the folder of the task or encoder"
            )
    for cell in plan.cells:
        plan.make_settings(cell, LearningRates())
    return plan


def parse_shard(text: str) -> tuple[int, int]:
    """Parses `i/n` into (i, n), counted from 0.

    Raises:
        SettingsError: the text is not a valid shard.
    """
    index, separator, count = text.partition("/")
    numbers = separator and index.isdecimal() and count.isdecimal()
    if numbers and int(index) < int(count):
        return int(index), int(count)
    raise SettingsError(
        f"study.shard={text!r}: allowed is i/n with 0 <= i < n, such as 0/2 and 1/2"
    )


def default_study_folder(plan: Plan) -> Path:
    """Returns `runs/study-{name}-{8 hex digits of the digest of the base}`."""
    common = plan.cells[0].group.make_settings(plan.base, 0, LearningRates())
    fields = {
        name: value
        for name, value in training_fields(common).items()
        # Without fields that depend on the method.
        if name not in VARIED | {"optim.clip_scope"}
        and not name.startswith("boundary_gradient")
    }
    return Path("runs") / f"study-{plan.study.name}-{compute_digest(fields)[:8]}"


def _is_text(name: str) -> bool:
    """Whether a name can be written as JSON; folder names may not be UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_study(study: StudySettings) -> None:
    parse_shard(study.shard)
    for name in ("methods", "seeds"):
        if not getattr(study, name):
            raise SettingsError(f"study.{name} is empty: give at least one")
    lists = ("methods", "tasks", "encoders", "train_sizes", "seeds")
    for name in (*lists, "encoder_learning_rates", "exit_learning_rates"):
        values = getattr(study, name)
        if len(set(values)) < len(values):
            raise SettingsError(f"study.{name}={values} contains a value twice")
    if study.metrics and len(study.metrics) != len(study.tasks):
        raise SettingsError(
            f"study.metrics={study.metrics}: give one for each of study.tasks"
            f" ({len(study.tasks)}), or none"
        )
    for part in ("encoder", "exit"):
        rates = getattr(study, f"{part}_learning_rates")
        if len(rates) == 1:
            raise SettingsError(
                f"study.{part}_learning_rates={rates}: there is nothing to choose; set"
                f" optim.{part}_learning_rate, or give several"
            )
    searches = study.encoder_learning_rates or study.exit_learning_rates
    if searches and study.learning_rates_seed in study.seeds:
        raise SettingsError(
            f"study.learning_rates_seed={study.learning_rates_seed} is one of"
            f" study.seeds={study.seeds}: choose learning rates with a seed that is"
            " not scored"
        )
