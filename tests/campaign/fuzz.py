"""Mutated files and folders through every reader."""

import dataclasses
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random

import sweet_jax
from campaign.mutate import ELSEWHERE, SECRET, mutate_folder
from campaign.readers import Reader, rehash
from campaign.seeds import Seeds
from campaign.watch import TooLong, Watch, watching
from sweet_jax.system.caches import find_cache

MOST_SECONDS = 5.0
# When a reader is taken for one that hangs.
_PATIENCE = 30
_PACKAGE = str(Path(sweet_jax.__file__).parent)
_LONGEST_LINE = 2500


@dataclasses.dataclass(frozen=True)
class Trial:
    """A mutated folder and what a reader did with it.

    Attributes:
        number: makes the same trial again.
        change: what was done to the folder.
        outcome: `read`, `refused`, or what went wrong.
        seconds: that the reader took.
        line: of the refusal.
    """

    number: int
    change: str
    outcome: str
    seconds: float
    line: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the reader did what it should."""
        return self.outcome in ("read", "refused")


def run_trials(
    reader: Reader, seeds: Seeds, scratch: Path, first: int, count: int
) -> Iterator[Trial]:
    """Yields the outcome of every trial.

    Args:
        reader: under attack.
        seeds: what is copied and changed.
        scratch: an empty folder to work in.
        first: number of the first trial.
        count: of trials.
    """
    source = reader.find(seeds)
    for name in (SECRET, ELSEWHERE):
        (scratch / name).write_text("secret", encoding="utf-8")
    # Temporary files go where a reader may write, and nowhere else.
    (seeds.root / "temporary").mkdir(exist_ok=True)
    tempfile.tempdir = str(seeds.root / "temporary")
    # What is imported and compiled at the first use is no matter of a trial.
    reader.read(source, seeds)
    for number in range(first, first + count):
        folder = scratch / "folder"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".lock"))
        rng = Random(f"{reader.name} {number}")
        changes = [mutate_folder(folder, rng)]
        while rng.random() < 0.2:
            changes.append(_mutate_again(folder, rng))
        if rng.random() < 0.7:
            rehash(folder)
        yield _try(reader, seeds, scratch, number, " and ".join(changes))
        shutil.rmtree(folder)


def _mutate_again(folder: Path, rng: Random) -> str:
    try:
        return mutate_folder(folder, rng)
    except (ValueError, OSError, KeyError, IndexError, EOFError) as error:
        return f"({type(error).__name__})"  # The first change left nothing to mutate.


def _try(
    reader: Reader, seeds: Seeds, scratch: Path, number: int, change: str
) -> Trial:
    watch = Watch(scratch / "folder", scratch / SECRET, (seeds.root, find_cache()))
    outcome, line = "read", ""
    try:
        with watching(watch, _PATIENCE):
            reader.read(scratch / "folder", seeds)
    except TooLong:
        outcome = "hangs"
    except (ValueError, OSError) as error:
        outcome, line = "refused", " ".join(str(error).split())
        frames = traceback.extract_tb(error.__traceback__)
        is_ours = frames[-1].filename.startswith(_PACKAGE)
        if isinstance(error, ValueError) and not is_ours:
            outcome = f"{type(error).__name__} of {Path(frames[-1].filename).name}"
        elif len(line) > _LONGEST_LINE:
            outcome = f"a line of {len(line)} characters"
        elif not line:
            outcome = "an empty line"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome = (
            f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
        )
        line = str(error)
    if watch.deeds:
        outcome = watch.deeds[0]
    elif watch.seconds > MOST_SECONDS and outcome in ("read", "refused"):
        outcome = f"took {watch.seconds:.1f} s"
    return Trial(number, change, outcome, watch.seconds, line)
