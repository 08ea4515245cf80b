"""What an analysis is: measurements of a run while it trains, in files of its own."""

import abc
import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from sweet_jax.arrays import Params
from sweet_jax.settings.fields import Settings
from sweet_jax.training.member_training import MemberTraining


@dataclasses.dataclass(frozen=True, eq=False)
class AnalysisInputs:
    """What an analysis gets of its run.

    Attributes:
        settings: of the run, with exit layers filled in; `analysis.steps_percent` and
            `analysis.num_batches` are for all analyses.
        trainings: one for each model that is trained on its own: the model, its member
            with phases and objectives, its batches (`iterate_plans`, `make_batch`).
        workdir: where the analysis keeps its files.
        writes: whether this process writes them; of several hosts only the first does.
    """

    settings: Settings
    trainings: tuple[MemberTraining, ...]
    workdir: Path
    writes: bool


class Analysis(abc.ABC):
    """One analysis of one run.

    Every process that works on the run makes it anew, from `AnalysisInputs`. What an
    earlier process measured it reads from its files, so that an interrupted run goes on
    and no step is measured twice. It must not change what the run computes: it gets
    parameters that it may read, and shares no random key with training.

    Attributes:
        files: names of the files that it writes into the work directory.
    """

    files: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def find_open_steps(self, member: str) -> frozenset[int]:
        """Returns the steps at which it still wants to measure.

        Args:
            member: name of the model in training; "" where the method has one.
        """

    @abc.abstractmethod
    def measure(self, member: str, step: int, params: Params) -> None:
        """Measures the parameters after a step and keeps the result in a file.

        Args:
            member: name of the model in training; "" where the method has one.
            step: steps done; 0 is before the first.
            params: of that model, on the mesh of its training; the next step reuses
                their memory.
        """

    @abc.abstractmethod
    def finish(self) -> None:
        """Notes in its file the steps that are still open when training is over.

        They can no longer be measured, and `find_open_steps` returns none of them from
        now on, so that the finished run is not asked for them again.
        """

    def summarize(self) -> dict[str, Any]:
        """Returns numbers and short texts by name, for results.json and the report."""
        return {}
