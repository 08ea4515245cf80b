"""The interface of an analysis, which measures a run while it trains."""

import abc
import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from sweet_jax.arrays import Params
from sweet_jax.settings.fields import Settings
from sweet_jax.training.member_training import MemberTraining


@dataclasses.dataclass(frozen=True, eq=False)
class AnalysisInputs:
    """The inputs of an analysis.

    Attributes:
        settings: settings of the run, with exit layers filled in;
            `analysis.steps_percent` and `analysis.num_batches` apply to all analyses.
        trainings: one per member: its model, its phases and objectives, its batches
            (`iterate_plans`, `make_batch`).
        workdir: directory for the files of the analysis.
        writes: whether this process writes them; only process 0 does.
    """

    settings: Settings
    trainings: tuple[MemberTraining, ...]
    workdir: Path
    writes: bool


class Analysis(abc.ABC):
    """One analysis of one run.

    Every process that works on the run constructs it from `AnalysisInputs`. It reads
    the measurements of earlier processes from its files, so that a resumed run measures
    no step twice. It must not affect training: it may only read the parameters, and
    must not use random keys of training.

    Attributes:
        files: names of the files that it writes to the work directory.
    """

    files: ClassVar[tuple[str, ...]] = ()

    @abc.abstractmethod
    def find_open_steps(self, member: str) -> frozenset[int]:
        """Returns the steps that it still has to measure.

        Args:
            member: name of the member in training; "" if the method has a single one.
        """

    @abc.abstractmethod
    def measure(self, member: str, step: int, params: Params) -> None:
        """Measures the parameters after a step and keeps the result in a file.

        Args:
            member: name of the member in training; "" if the method has a single one.
            step: number of steps done; 0 is before the first.
            params: parameters of the member, on the training mesh; the next step reuses
                their memory.
        """

    @abc.abstractmethod
    def finish(self) -> None:
        """Records the steps that are still open at the end of training as missing.

        They can no longer be measured; from now on `find_open_steps` must not return
        them, so that a finished run counts as finished.
        """

    def summarize(self) -> dict[str, Any]:
        """Returns numbers and short texts by name for results.json and the report."""
        return {}
