"""A local folder of data files: finds the split of each file and reads the rows.

Tables (.csv, .tsv, .jsonl) are read like the files of `data.task=file`, so that text
stays text; other files are read by `datasets`. The rules for file names are those of
`datasets`, as far as folders of tables need them.
"""

import re
from collections import defaultdict
from pathlib import Path

from sweet_jax.data.columns import ask_columns
from sweet_jax.data.examples import Table
from sweet_jax.data.find_columns import NO_COLUMNS, ColumnFlags, Columns
from sweet_jax.data.hub import load_hub
from sweet_jax.data.rows import COMPRESSED, find_format
from sweet_jax.data.table_files import read_splits
from sweet_jax.data.tasks import Task
from sweet_jax.settings.fields import DataSettings
from sweet_jax.system.files import show

# A file or folder belongs to a split if its name has one of these words, separated by
# non-letters: train.csv, data/train-00000-of-00001.jsonl, test/part_1.tsv.
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_OTHER_DATA = (".parquet", ".arrow", ".json")
# A dataset card (README.md) may list the files of each split.
_CARD_FILES = re.compile(r"^\s*(-\s*)?data_files:", re.MULTILINE)
_USE_FILES = (
    "name the files instead: --config.data.train_file=FILE --config.data.test_file=FILE"
)


def load_folder(
    task: Task,
    settings: DataSettings,
    flags: ColumnFlags,
    remembered: Columns = NO_COLUMNS,
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Returns the rows of a local folder by split, and the label names if published.

    Raises:
        ValueError: the folder holds no data, or mixes kinds of files, or a file or row
            cannot be used.
    """
    folder = Path(task.hub_path)
    splits = find_tables(folder, task.name)
    if not splits:
        return load_hub(task, settings, flags, remembered)
    fields = dict.fromkeys(splits, f"data.task={show(task.name)}: file")
    asked = ask_columns(task, settings)
    return read_splits(splits, fields, asked, flags, remembered), ()


def find_tables(folder: Path, name: str) -> dict[str, tuple[Path, ...]]:
    """Returns split -> the tables of a folder; {} if it has no tables.

    Tables are in the folder, in its subfolder `data`, or in subfolders named after
    splits. If no name contains a split, all tables are training rows.

    Args:
        folder: the folder.
        name: its name in messages.

    Raises:
        ValueError: a split has several kinds of files or lies in several folders, there
            are tables beside other data, tables are compressed, the dataset card lists
            files, or a name contains the words of two splits.
    """
    roots = [folder, folder / "data"]
    # The name of the folder itself does not name a split.
    places = dict.fromkeys(roots, "") | {
        place: _find_split(place.name)
        for root in roots
        for place in _list(root)
        if place not in roots and place.is_dir() and _find_split(place.name)
    }
    files = {
        path: split or _find_split(path.name)
        for place, split in places.items()
        for path in _list(place)
        if path.is_file()
    }
    where = f"data.task={show(name)}"
    tables = {path: split for path, split in files.items() if find_format(path.name)}
    for path in files:
        if path.suffix.lower() in COMPRESSED and find_format(path.stem):
            raise ValueError(
                f"{where}: {show(path.name)} is compressed: unpack it first"
            )
    if not tables:
        return {}
    # A .json whose name has no split is metadata of the data set.
    other = [
        path
        for path, split in files.items()
        if path.suffix.lower() in _OTHER_DATA and (split or path.suffix != ".json")
    ]
    if other:
        raise ValueError(
            f"{where} holds {show(next(iter(tables)).name)} and {show(other[0].name)}:"
            f" keep one kind of data files, or {_USE_FILES}"
        )
    card = folder / "README.md"
    if card.is_file() and _CARD_FILES.search(
        card.read_text(encoding="utf-8", errors="replace")
    ):
        raise ValueError(
            f"{where}: its README.md says which files are which splits, which is not"
            f" read for .csv, .tsv and .jsonl: {_USE_FILES}"
        )
    by_split = defaultdict(list)
    for path, split in sorted(tables.items()):
        if split:
            by_split[split].append(path)
    if not by_split:
        by_split["train"] = sorted(tables)
    for split, paths in by_split.items():
        for what, kinds in (
            ("kinds of files", {find_format(path.name) for path in paths}),
            ("folders", {path.parent for path in paths}),
        ):
            if len(kinds) > 1:
                names = " and ".join(
                    show(str(p.relative_to(folder))) for p in (paths[0], paths[-1])
                )
                raise ValueError(
                    f"{where} has files of the split {split} of several {what}:"
                    f" {names}: keep one, or {_USE_FILES}"
                )
    order = ("train", "validation", "test")
    return {split: tuple(by_split[split]) for split in order if split in by_split}


def _list(folder: Path) -> list[Path]:
    """Returns the sorted entries of a folder, without hidden ones."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__")))


def _find_split(name: str) -> str:
    """Returns the split whose word is in the name; empty if there is none.

    Raises:
        ValueError: the name has the words of two splits.
    """
    words = set(re.split(r"[-._ 0-9]+", name.lower()))
    found = [split for split, known in _WORDS.items() if words & set(known)]
    if len(found) > 1:
        raise ValueError(
            f"{show(name)} has the words of two splits, {' and '.join(found)}, in its"
            f" name: rename it, or {_USE_FILES}"
        )
    return found[0] if found else ""
