"""Options of the predict command, checked before jax is loaded."""

import dataclasses
import fcntl
import os
import stat
from pathlib import Path

from sweet_jax.serving.inputs import ALL, PassedColumns, find_format
from sweet_jax.serving.job_files import JobPaths
from sweet_jax.system.files import show

OUTPUT_ENDINGS = (".jsonl", ".csv")
CSV_FORMULAS = ("escape", "keep")
# The whole chunk is in memory.
MOST_CHUNK_ROWS = 1 << 20


class OptionError(ValueError):
    """A flag of the predict command is wrong; the message is one line."""


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """Options of a prediction job.

    Each field is a flag of the command `predict`, with the text below as its help. At
    most one of the targets is given; without one, every layer runs.

    Attributes:
        source: a file, or `-` for standard input.
        output: a .jsonl or .csv file, resumable; without one, predictions go to
            standard output as jsonl.
        input_format: text, csv, tsv or jsonl; without one, by the file's ending.
        text_columns: text columns of a table; default: those of the training, else
            columns with usual names.
        id_column: column of a table, written with each prediction as `id`.
        keep_columns: columns of a table, written with each prediction; `all`: every
            one.
        threshold: exit at the first exit whose score reaches this threshold.
        speedup: choose a threshold for this speed-up.
        milliseconds: choose a threshold for this mean time per input on this device.
        max_accuracy_loss: choose a threshold that loses at most this much accuracy,
            with probability 0.9.
        choose: for speedup and milliseconds: `cost`, the most expensive threshold
            within the budget, or `score`, the one with the best score.
        criterion: criterion whose scores are compared with the threshold.
        strict: stop at an unusable row.
        chunk_rows: number of rows after which progress is recorded.
        csv_formulas: `escape`: cells that a spreadsheet would run as formulas get an
            apostrophe in a csv; `keep`: they are unchanged.
        benchmark: only measure the first rows: expected and measured speed-ups.
    """

    source: str = "-"
    output: Path | None = None
    input_format: str = ""
    text_columns: tuple[str, ...] = ()
    id_column: str = ""
    keep_columns: tuple[str, ...] = ()
    threshold: float | None = None
    speedup: float | None = None
    milliseconds: float | None = None
    max_accuracy_loss: float | None = None
    choose: str = "cost"
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
    def targets(self) -> dict[str, float | None]:
        """What may decide on the thresholds, by name."""
        names = ("threshold", "speedup", "milliseconds", "max_accuracy_loss")
        return {name: getattr(self, name) for name in names}

    @property
    def passed(self) -> PassedColumns:
        """The input columns that are copied to the output."""
        return PassedColumns(self.id_column, tuple(dict.fromkeys(self.keep_columns)))

    @property
    def source_name(self) -> str:
        """The name of the input in messages."""
        is_stream = self.source == "-"
        return "standard input" if is_stream else f"--input={show(self.source)}"

    def check(self, folder: Path) -> None:
        """Raises ValueError for an option that no model allows; writes nothing.

        Args:
            folder: the model folder; input and output must not be in it.
        """
        # Imported here: --help reads this class and must not load jax.
        from sweet_jax.thresholds.choice import check_choose, pick_target

        if not 1 <= self.chunk_rows <= MOST_CHUNK_ROWS:
            raise OptionError(
                f"--chunk_rows={self.chunk_rows}: allowed is 1 to {MOST_CHUNK_ROWS}"
            )
        target = pick_target(**self.targets)
        check_choose(self.choose, target[0] if target else "")
        input_format = find_format(self.source, self.input_format)
        self._check_columns(input_format)
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

    def _check_columns(self, input_format: str) -> None:
        for flag, names in (
            ("text_columns", self.text_columns),
            ("id_column", tuple(filter(None, [self.id_column]))),
            ("keep_columns", self.keep_columns),
        ):
            shown = f"--{flag}={show(','.join(names))}"
            if names and input_format == "text":
                raise OptionError(
                    f"{shown}: an input of --format=text has no columns; leave it out,"
                    " or give --format of csv, tsv, jsonl"
                )
            if any(not _is_unicode(name) for name in names):
                raise OptionError(f"{shown} is not UTF-8, but inputs are read as UTF-8")
            if names and self.benchmark and flag != "text_columns":
                raise OptionError(f"--benchmark writes no answers: leave {shown} out")
        if ALL in self.keep_columns and len(self.keep_columns) > 1:
            raise OptionError(
                f"--keep_columns={show(','.join(self.keep_columns))}: all means every"
                " column: give all, or names of columns"
            )

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
                "--benchmark chooses its own thresholds: leave --threshold, --speedup,"
                " --milliseconds and --max_accuracy_loss out"
            )
        if self.output is not None:
            raise OptionError("--benchmark writes no answers: leave --output out")
        _check_printing()

    def _check_screen(self) -> None:
        _check_printing()
        # The output would be appended to the input and read again, without end.
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
        """Whether the input is the same regular file, also under another name."""
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
    """Whether a descriptor is open with this mode."""
    try:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    except OSError:
        return False
    return flags & os.O_ACCMODE in (mode, os.O_RDWR)


def _is_inside(path: Path, folder: Path) -> bool:
    # Not by path: a folder may have several paths.
    if not (folder / "model.json").is_file():  # Its reader reports that.
        return False
    parents = Path(os.path.realpath(path)).parents
    return any(parent.exists() and parent.samefile(folder) for parent in parents)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # argv had bytes that are not UTF-8.
        return False
    return True
