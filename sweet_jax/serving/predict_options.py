"""What the predict command is asked; checked before anything heavy is loaded."""

import dataclasses
import fcntl
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from sweet_jax.serving.inputs import find_format
from sweet_jax.serving.job import JobPaths
from sweet_jax.system.files import show
from sweet_jax.thresholds.choice import pick_target

OUTPUT_ENDINGS = (".jsonl", ".csv")
CSV_FORMULAS = ("escape", "keep")


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
        csv_formulas: `escape`: labels that a spreadsheet would run as formulas get an
            apostrophe in a csv; `keep`: they are written as they are.
        benchmark: only the first rows are timed; nothing is answered.
    """

    source: str
    output: Path | None = None
    input_format: str = ""
    text_columns: tuple[str, ...] = ()
    targets: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    criterion: str = "confidence"
    strict: bool = False
    chunk_rows: int = 4096
    csv_formulas: str = "escape"
    benchmark: bool = False

    @property
    def is_csv(self) -> bool:
        """Whether the output is a csv."""
        return self.output is not None and self.output.suffix.lower() == ".csv"

    @property
    def source_name(self) -> str:
        """The input as messages name it."""
        is_stream = self.source == "-"
        return "standard input" if is_stream else f"--input={show(self.source)}"

    def check(self, folder: Path) -> None:
        """Raises ValueError for what is wrong whatever the model; writes nothing.

        Args:
            folder: of the model, which neither holds the input nor gets the output.
        """
        pick_target(**self.targets)
        input_format = find_format(self.source, self.input_format)
        if input_format == "text" and self.text_columns:
            raise OptionError(
                f"--text_columns={show(','.join(self.text_columns))}: an input of"
                " --format=text has no columns; leave it out, or give --format of csv,"
                " tsv, jsonl"
            )
        if any(not _is_unicode(name) for name in self.text_columns):
            raise OptionError(
                f"--text_columns={show(','.join(self.text_columns))} is no UTF-8, in"
                " which inputs are read"
            )
        if self.csv_formulas not in CSV_FORMULAS:
            raise OptionError(
                f"--csv_formulas={show(self.csv_formulas)}: allowed are"
                f" {', '.join(CSV_FORMULAS)}"
            )
        if self.csv_formulas != "escape" and not self.is_csv:
            raise OptionError(
                f"--csv_formulas={self.csv_formulas} is for an --output that ends in"
                " .csv: leave it out"
            )
        self._check_input(folder)
        if self.benchmark:
            self._check_benchmark()
        elif self.output is None:
            self._check_screen()
        else:
            self._check_output(self.output, folder)

    def _check_input(self, folder: Path) -> None:
        if self.source == "-":
            if not _is_open(0, os.O_RDONLY):
                raise OptionError("standard input is closed: give --input=FILE")
            return
        if not Path(self.source).exists():
            raise OptionError(f"{self.source_name} does not exist")
        if Path(self.source).is_dir():
            raise OptionError(f"{self.source_name} is a folder: give a file")
        if _is_inside(Path(self.source), folder):
            raise OptionError(
                f"{self.source_name} is a file of --model: give another input"
            )

    def _check_benchmark(self) -> None:
        if any(value is not None for value in self.targets.values()):
            raise OptionError(
                "--benchmark takes thresholds of its own: leave --threshold,"
                " --speedup, --milliseconds and --max_accuracy_loss out"
            )
        if self.output is not None:
            raise OptionError("--benchmark writes no answers: leave --output out")
        _check_printing()

    def _check_screen(self) -> None:
        _check_printing()
        # Answers at the end of the input would be answered, and so on.
        if self._is_input(1) or self._is_input(2):
            raise OptionError(
                f"{self.source_name} is also what the answers are written to: name"
                " another file"
            )

    def _check_output(self, output: Path, folder: Path) -> None:
        name = f"--output={show(str(output))}"
        if output.suffix.lower() not in OUTPUT_ENDINGS:
            raise OptionError(
                f"{name}: allowed endings are {', '.join(OUTPUT_ENDINGS)}; without"
                " --output answers go to the screen"
            )
        if not output.parent.is_dir():
            raise OptionError(
                f"{name}: there is no folder {show(str(output.parent))}: make it, or"
                " name another"
            )
        if _is_inside(output, folder):
            raise OptionError(f"{name} is in the folder of --model: name another")
        paths = JobPaths.beside(output)
        for path in (paths.output, paths.rejected, paths.record):
            if self._is_input(path):
                raise OptionError(
                    f"{self.source_name} is also {show(str(path))}, which belongs to"
                    " --output: name another output"
                )
        paths.check()

    def _is_input(self, other: Path | int) -> bool:
        """Whether the input is this regular file, whatever its name."""
        try:
            source = 0 if self.source == "-" else self.source
            found, wanted = os.stat(other), os.stat(source)
        except OSError:  # One of them is missing or closed.
            return False
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, wanted)


def _check_printing() -> None:
    if not _is_open(1, os.O_WRONLY):
        raise OptionError("standard output is closed: give --output=FILE.jsonl")


def _is_open(descriptor: int, mode: int) -> bool:
    """Whether a descriptor is open, and for reading or writing as `mode` says."""
    try:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    except OSError:
        return False
    return flags & os.O_ACCMODE in (mode, os.O_RDWR)


def _is_inside(path: Path, folder: Path) -> bool:
    # Not by names: a folder may be reached by several.
    if not (folder / "model.json").is_file():  # As its reader will say.
        return False
    parents = Path(os.path.realpath(path)).parents
    return any(parent.exists() and parent.samefile(folder) for parent in parents)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # What argv has of other bytes.
        return False
    return True
