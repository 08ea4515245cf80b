"""What the predict command is asked; checked before anything heavy is loaded."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from sweet_jax.inference.choice import pick_target
from sweet_jax.inference.inputs import find_format

OUTPUT_ENDINGS = (".jsonl", ".csv")


class OptionError(ValueError):
    """A flag of the predict command is wrong: one line that says why."""


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """What a prediction job is asked.

    Attributes:
        source: a file, or `-` for standard input.
        output: .jsonl or .csv; None: standard output, as jsonl, not resumable.
        input_format: of `inputs.FORMATS`; empty: by the ending.
        text_columns: of a table; (): by their usual names.
        targets: at most one of `threshold`, `speedup`, `milliseconds` and
            `max_accuracy_loss` that is not None; without one, every layer runs.
        criterion: whose scores decide.
        strict: a row that cannot be used stops the job.
        chunk_rows: answered together and noted as done together.
    """

    source: str
    output: Path | None = None
    input_format: str = ""
    text_columns: tuple[str, ...] = ()
    targets: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    criterion: str = "confidence"
    strict: bool = False
    chunk_rows: int = 4096

    def check(self) -> None:
        """Raises ValueError for what is wrong whatever the model."""
        pick_target(**self.targets)
        find_format(self.source, self.input_format)
        if self.source != "-" and not Path(self.source).exists():
            raise OptionError(f"--input={self.source} does not exist")
        if self.output is None:
            return
        if self.output.suffix.lower() not in OUTPUT_ENDINGS:
            raise OptionError(
                f"--output={self.output}: allowed endings are"
                f" {', '.join(OUTPUT_ENDINGS)}"
            )
        if not self.output.parent.is_dir():
            raise OptionError(
                f"--output={self.output}: there is no folder {self.output.parent}"
            )
