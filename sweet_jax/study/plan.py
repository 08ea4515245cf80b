"""The plan of a study: which runs (cells) it consists of, with all their settings.

Every cell is a run as `sweet_jax.main` makes it, in a work directory of its own. Cells
of equal seed, task and size share rows, splits, order and fresh weights, so methods are
compared in pairs.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sweet_jax.settings.fields import (
    AUTO,
    Settings,
    SettingsError,
    StudySettings,
    compute_digest,
    to_dict,
    training_fields,
)
from sweet_jax.settings.resolve import from_config_dict

# What tells the cells of one study apart.
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
RATES = "rates"


class Rates(NamedTuple):
    """Peak learning rates of a run; None: as the study's base says."""

    encoder: float | None = None
    exits: float | None = None

    @property
    def name(self) -> str:
        """What they add to the name of a cell."""
        parts = (("r", self.encoder), ("e", self.exits))
        return "".join(f"-{mark}{rate:g}" for mark, rate in parts if rate is not None)


@dataclasses.dataclass(frozen=True)
class Group:
    """Cells that differ by their seed alone, once their learning rates are chosen.

    Attributes:
        task: as `data.task` says.
        metric: as `data.metric` says.
        encoder: as `encoder.name` says.
        train_size: as `data.max_train_examples` says.
        method: label, such as `sweet(a=0.2)`.
    """

    task: str
    metric: str
    encoder: str
    train_size: int
    method: str

    @property
    def name(self) -> str:
        """What the names of its cells begin with."""
        task, encoder = Path(self.task).name, Path(self.encoder).name
        size = f"-n{self.train_size}" if self.train_size else ""
        # A share per seam has slashes, which a folder's name must not.
        method = self.method.replace("/", "+")
        return f"{task}-{encoder}{size}-{method}"

    def make_settings(
        self, base: Mapping[str, Any], seed: int, rates: Rates
    ) -> Settings:
        """Returns the settings of a cell.

        Args:
            base: what the study's config says of its runs, sections nested.
            seed: of the run.
            rates: of learning.

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
        group: what it is a run of.
        seed: of the run.
        purpose: `score`, or `rates`: it only helps to choose the learning rates.
        rates: those that a `rates` cell tries; None: the group's choice, or the base's
            where nothing is to be chosen.
    """

    group: Group
    seed: int
    purpose: str = SCORE
    rates: Rates | None = None

    @property
    def name(self) -> str:
        """Of the work directory within the study."""
        rates = "" if self.rates is None else self.rates.name
        return f"{self.group.name}{rates}-s{self.seed}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A study's cells.

    Attributes:
        study: what is compared.
        base: what all cells have in common, as nested fields; -1 and `auto` are left
            to each cell's method.
        cells: in the order in which they run: whatever chooses rates first, then seed
            by seed, so that an unfinished study compares all methods on fewer seeds.
    """

    study: StudySettings
    base: Mapping[str, Any]
    cells: tuple[Cell, ...]

    def select_shard(self) -> tuple[Cell, ...]:
        """Returns the cells of this shard.

        The runs that choose rates and those that use them stay in one shard, so shards
        need no common disk.
        """
        index, count = parse_shard(self.study.shard)
        if any(cell.purpose == RATES for cell in self.cells):
            groups = list(dict.fromkeys(cell.group for cell in self.cells))
            mine = groups[index::count]
            return tuple(cell for cell in self.cells if cell.group in mine)
        # Each round of n cells starts one further on: a method that takes longer than
        # others does not always meet the same shard.
        return tuple(
            cell
            for k, cell in enumerate(self.cells)
            if (k + k // count) % count == index
        )

    def find_rate_cells(self, group: Group) -> tuple[Cell, ...]:
        """Returns the cells that choose the learning rates of a group."""
        return tuple(c for c in self.cells if c.group == group and c.purpose == RATES)

    def make_settings(self, cell: Cell, chosen: Rates) -> Settings:
        """Returns the settings of a cell, its group's chosen rates given."""
        return cell.group.make_settings(self.base, cell.seed, cell.rates or chosen)


def make_plan(base: Settings | Mapping[str, Any], study: StudySettings) -> Plan:
    """Returns the plan of a study; every cell's settings are checked.

    Args:
        base: the fields of the config file but for its section `study`.
        study: that section.

    Raises:
        SettingsError: a field of the study is wrong, or contradicts the base.
    """
    if isinstance(base, Settings):
        base = to_dict(base)
    base = {name: base[name] for name in base}
    _check_study(study)
    # What the base does not give has its value: the names of cells show their size.
    shared = from_config_dict({**base, "method": study.methods[0]})
    for part in ("encoder", "exit"):
        rate, rates = base["optim"][f"{part}_learning_rate"], f"study.{part}_rates"
        if rate != AUTO and getattr(study, f"{part}_rates"):
            raise SettingsError(
                f"optim.{part}_learning_rate={rate} would not be used: {rates} chooses"
                " the rate; drop one of the two"
            )
    tasks = study.tasks or (shared.data.task,)
    metrics = study.metrics or (shared.data.metric,) * len(tasks)
    groups = [
        Group(task, metric, encoder, size, method)
        for (task, metric), encoder, size, method in itertools.product(
            zip(tasks, metrics, strict=True),
            study.encoders or (shared.encoder.name,),
            study.train_sizes or (shared.data.max_train_examples,),
            # As results show it: 0.20 and 0.2 are one method.
            [from_config_dict({"method": m}).method_label for m in study.methods],
        )
    ]
    candidates = [
        Rates(*pair)
        for pair in itertools.product(
            study.encoder_rates or (None,), study.exit_rates or (None,)
        )
        if pair != (None, None)
    ]
    rates = [
        Cell(group, study.rates_seed, RATES, candidate)
        for group in groups
        for candidate in candidates
    ]
    scores = [Cell(group, seed) for seed in study.seeds for group in groups]
    plan = Plan(study, base, (*rates, *scores))
    names = [cell.name for cell in plan.cells]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(
                f"the study has two cells of the name {name}: tasks and encoders need"
                " different folder names, methods and seeds must differ"
            )
    for cell in plan.cells:
        plan.make_settings(cell, Rates())
    return plan


def parse_shard(text: str) -> tuple[int, int]:
    """Parses `i/n` into (i, n), counted from 0.

    Raises:
        SettingsError: the text is no such shard.
    """
    index, separator, count = text.partition("/")
    numbers = separator and index.isdecimal() and count.isdecimal()
    if numbers and int(index) < int(count):
        return int(index), int(count)
    raise SettingsError(
        f"study.shard={text!r}: allowed is i/n with 0 <= i < n, such as 0/2 and 1/2"
    )


def default_study_folder(plan: Plan) -> Path:
    """Returns `runs/study-{name}-{8 hex of what the cells have in common}`."""
    common = plan.cells[0].group.make_settings(plan.base, 0, Rates())
    fields = {
        name: value
        for name, value in training_fields(common).items()
        # The method's own, which its label says.
        if name not in VARIED | {"optim.clip_scope"}
        and not name.startswith("boundary_gradient")
    }
    return Path("runs") / f"study-{plan.study.name}-{compute_digest(fields)[:8]}"


def _check_study(study: StudySettings) -> None:
    parse_shard(study.shard)
    for name in ("methods", "seeds"):
        if not getattr(study, name):
            raise SettingsError(f"study.{name} is empty: give at least one")
    lists = ("methods", "tasks", "encoders", "train_sizes", "seeds")
    for name in (*lists, "encoder_rates", "exit_rates"):
        values = getattr(study, name)
        if len(set(values)) < len(values):
            raise SettingsError(f"study.{name}={values} has a value twice")
    if study.metrics and len(study.metrics) != len(study.tasks):
        raise SettingsError(
            f"study.metrics={study.metrics}: give one for each of study.tasks"
            f" ({len(study.tasks)}), or none"
        )
    for part in ("encoder", "exit"):
        rates = getattr(study, f"{part}_rates")
        if len(rates) == 1:
            raise SettingsError(
                f"study.{part}_rates={rates}: there is nothing to choose; set"
                f" optim.{part}_learning_rate, or give several"
            )
    searches = study.encoder_rates or study.exit_rates
    if searches and study.rates_seed in study.seeds:
        raise SettingsError(
            f"study.rates_seed={study.rates_seed} is one of study.seeds={study.seeds}:"
            " choose rates with a seed that is not scored"
        )
