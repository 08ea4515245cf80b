"""The tasks: the source of their rows, their columns and their metric."""

import dataclasses
import re
from pathlib import Path
from typing import Literal

from sweet_jax.settings.registries import SOURCES
from sweet_jax.system.names import find_close

GLUE_PATH = "nyu-mll/glue"
TFDS_PREFIX = "tfds/"
# Rows passed to `sweet_jax.train`, named by a digest of their content.
_IN_MEMORY = re.compile("rows-[0-9a-f]{16}")


@dataclasses.dataclass(frozen=True)
class Task:
    """A classification task of single texts or pairs.

    Attributes:
        name: the value of `data.task`.
        kind: the source of the rows, a name in `SOURCES`: the embedded package, files,
            a local folder of data files, the hub through `datasets`,
            tensorflow-datasets, memory, or a registered source.
        metric: the metric of `score`; accuracy is shown beside it.
        hub_path: hub id, local folder or tensorflow-datasets name, or the text after
            the name of a registered source; empty otherwise.
        hub_config: configuration of the hub data set; empty: it has only one.
        text_columns: one or two columns; (): found by their usual names.
        label_column: column of the labels; empty: given by `data.label_column`.
        label_names: names by class index, if known beforehand.
        test_split: the split that is tested on. GLUE publishes no test labels, so
            its tasks are tested on their validation split.
        extra_test_splits: further splits, evaluated and reported beside the test.
        is_curated: whether the published rows are used unchanged, with empty texts.
    """

    name: str
    kind: str
    metric: str = "accuracy"
    hub_path: str = ""
    hub_config: str = ""
    text_columns: tuple[str, ...] = ()
    label_column: str = ""
    label_names: tuple[str, ...] = ()
    test_split: Literal["test", "validation"] = "test"
    extra_test_splits: tuple[str, ...] = ()
    is_curated: bool = False


def _make_glue(
    name: str,
    text_columns: tuple[str, ...],
    label_names: tuple[str, ...],
    metric: str = "accuracy",
    extra_test_splits: tuple[str, ...] = (),
) -> Task:
    return Task(
        name=name,
        kind="hub",
        metric=metric,
        hub_path=GLUE_PATH,
        hub_config=name,
        text_columns=text_columns,
        label_column="label",
        label_names=label_names,
        test_split="validation",
        extra_test_splits=extra_test_splits,
        is_curated=True,
    )


def _make_embedded(name: str) -> Task:
    return Task(
        name=name,
        kind="embedded",
        text_columns=("text",),
        label_column="label",
        label_names=("negative", "positive"),
        is_curated=True,
    )


_ENTAILMENT = ("entailment", "not_entailment")
_SENTENCES = ("sentence1", "sentence2")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _make_embedded("rotten_tomatoes"),
        _make_embedded("imdb"),
        Task(name="file", kind="file"),
        _make_glue("cola", ("sentence",), ("unacceptable", "acceptable"), "matthews"),
        _make_glue(
            "mnli",
            ("premise", "hypothesis"),
            ("entailment", "neutral", "contradiction"),
            extra_test_splits=("validation_mismatched",),
        ),
        _make_glue("mrpc", _SENTENCES, ("not_equivalent", "equivalent"), "f1"),
        _make_glue("qnli", ("question", "sentence"), _ENTAILMENT),
        _make_glue(
            "qqp", ("question1", "question2"), ("not_duplicate", "duplicate"), "f1"
        ),
        _make_glue("rte", _SENTENCES, _ENTAILMENT),
        _make_glue("sst2", ("sentence",), ("negative", "positive")),
        _make_glue("wnli", _SENTENCES, ("not_entailment", "entailment")),
    )
}

_PATH_STARTS = ("/", "./", "../", "~")
_FILE_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".txt", ".parquet", ".xlsx", ".zip")

# GLUE configurations that are not classification tasks -> the reason.
REFUSED: dict[str, str] = {
    "stsb": "is a regression task (similarities from 0 to 5): exits here classify",
    "ax": "is a diagnostic set without labels: it can be neither trained nor scored",
}


def get_task(name: str) -> Task:
    """Returns the task with the name that `data.task` gives.

    Args:
        name: an embedded task, a GLUE task, `file`, `tfds/NAME` (also tfds/glue/TASK),
            a registered source with its argument after a slash, or anything else that
            `datasets` opens: `owner/name`, `owner/name:configuration`, or a local
            folder of data files.

    Raises:
        ValueError: the task is refused (stsb), empty, a file, or similar to a known
            name.
    """
    if name in TASKS:
        return TASKS[name]
    if not name.strip():
        raise ValueError(f"data.task is empty: allowed are {_describe_allowed()}")
    if name.startswith(TFDS_PREFIX):
        return _get_tfds_task(name)
    if _IN_MEMORY.fullmatch(name):
        return Task(name=name, kind="rows")
    source, _, rest = name.partition("/")
    if source in _list_sources():
        return Task(name=name, kind=source, hub_path=rest)
    path = Path(name)
    if path.is_dir():
        return Task(name=name, kind="folder", hub_path=name)
    if path.exists():
        raise ValueError(
            f"data.task={name!r} is a file: set --config.data.train_file={name} instead"
        )
    if is_path(name):
        raise ValueError(f"data.task={name!r}: there is no such file or folder")
    if "/" not in name:
        _refuse_near_miss(name)
    hub_path, _, config = name.partition(":")
    return Task(name=name, kind="hub", hub_path=hub_path, hub_config=config)


def is_path(name: str) -> bool:
    """Returns whether a name is written as a path, which no hub id is."""
    return name.startswith(_PATH_STARTS) or name.lower().endswith(_FILE_ENDINGS)


def _get_tfds_task(name: str) -> Task:
    builder = name.removeprefix(TFDS_PREFIX)
    if not builder:
        raise ValueError(f"data.task={name!r}: add a name, as in tfds/imdb")
    family, _, glue_name = builder.partition("/")
    if family != "glue":
        return Task(name=name, kind="tfds", hub_path=builder)
    if glue_name in REFUSED:
        raise ValueError(f"data.task={name!r} {REFUSED[glue_name]}")
    if glue_name not in TASKS or TASKS[glue_name].hub_path != GLUE_PATH:
        raise ValueError(
            f"data.task={name!r}: allowed after tfds/glue/ are {', '.join(_glue())}"
        )
    return dataclasses.replace(
        TASKS[glue_name], name=name, kind="tfds", hub_path=builder, hub_config=""
    )


def _refuse_near_miss(name: str) -> None:
    """Raises ValueError for a refused task, or a name that looks misspelt."""

    def fold(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    for refused, reason in REFUSED.items():
        if fold(name) == refused:
            raise ValueError(f"data.task={name!r} {reason}")
    known = {fold(task): task for task in (*TASKS, *_list_sources())}
    if close := find_close(fold(name), known, cutoff=0.8):
        raise ValueError(
            f"data.task={name!r}: did you mean {known[close[0]]}? (a hub data set of"
            " that name is written owner/name)"
        )


def _glue() -> list[str]:
    return [name for name, task in TASKS.items() if task.hub_path == GLUE_PATH]


def _list_sources() -> list[str]:
    return [name for name in SOURCES.names() if not SOURCES.is_builtin(name)]


def _describe_allowed() -> str:
    names = ", ".join((*TASKS, *_list_sources()))
    return f"{names}, tfds/NAME, a hub data set or a local folder of data"
