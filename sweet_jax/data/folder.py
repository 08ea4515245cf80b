"""A local folder of data files: which file is which split, and who reads it.

Tables (.csv, .tsv, .jsonl) are read as the files of `data.task=file` are, so that text
stays text; anything else goes through `datasets`, whose rules for names are followed
here as far as folders of tables use them.
"""

import re
from collections import defaultdict
from pathlib import Path

from sweet_jax.data.columns import ColumnFlags
from sweet_jax.data.examples import Table
from sweet_jax.data.hub import load_hub
from sweet_jax.data.rows import COMPRESSED, find_format
from sweet_jax.data.table_files import read_splits
from sweet_jax.data.tasks import Task
from sweet_jax.settings.fields import DataSettings
from sweet_jax.system.files import show

# A file or folder belongs to a split by such a word in its name, set apart by what is
# no letter: train.csv, data/train-00000-of-00001.jsonl, test/part_1.tsv.
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_OTHER_DATA = (".parquet", ".arrow", ".json")
# A card may name the files of splits in its own way.
_CARD_FILES = re.compile(r"^\s*(-\s*)?data_files:", re.MULTILINE)
_USE_FILES = (
    "name the files instead: --config.data.task=file --config.data.train_file=FILE"
    " --config.data.test_file=FILE"
)


def load_folder(
    task: Task, settings: DataSettings, flags: ColumnFlags
) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Returns the rows of a local folder by split, and the label names if published.

    Raises:
        ValueError: the folder holds no data, or kinds of files that do not go together,
            or a file or row cannot be used.
    """
    folder = Path(task.hub_path)
    splits = find_tables(folder, task.name)
    if not splits:
        return load_hub(task, settings, flags)
    fields = dict.fromkeys(splits, f"data.task={show(task.name)}: file")
    return read_splits(splits, fields, settings, flags), ()


def find_tables(folder: Path, name: str) -> dict[str, tuple[Path, ...]]:
    """Returns the tables of a folder by split; {} where it holds no tables.

    They lie in the folder, in its folder `data`, or in folders that are named as
    splits. Where no name tells a split, all are training rows.

    Args:
        folder: the folder.
        name: what to call it in messages.

    Raises:
        ValueError: a split of several kinds of files or of several folders, tables
            beside other data, compressed tables, a card that names files otherwise, or
            a name with the words of two splits.
    """
    roots = [folder, folder / "data"]
    # The name of the whole folder says nothing about splits.
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
    # A .json without a word for a split describes the data set.
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
    """Returns what lies in a folder and is meant to be seen, in order."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__")))


def _find_split(name: str) -> str:
    """Returns the split that a name has a word of; empty without one.

    Raises:
        ValueError: it has words of two.
    """
    words = set(re.split(r"[-._ 0-9]+", name.lower()))
    found = [split for split, known in _WORDS.items() if words & set(known)]
    if len(found) > 1:
        raise ValueError(
            f"{show(name)} has the words of two splits, {' and '.join(found)}, in its"
            f" name: rename it, or {_USE_FILES}"
        )
    return found[0] if found else ""
