"""A finished run, for Python programs and notebooks."""

import functools
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweet_jax import report
from sweet_jax.report.files import read_results
from sweet_jax.runs.workdir import MODEL
from sweet_jax.system.files import show

if TYPE_CHECKING:
    from sweet_jax.serving.classifier import AdaptiveClassifier

_FRAME_HEIGHT = 640  # Of the report in a notebook, in pixels.


class Report:
    """The report page of a run; notebooks display it.

    Attributes:
        path: path of report.html.
    """

    def __init__(self, path: Path) -> None:
        """Stores the path; nothing is read yet."""
        self.path = path

    def __fspath__(self) -> str:
        """Returns the path, so that `open` and `Path` accept the report."""
        return str(self.path)

    def __repr__(self) -> str:
        """Returns the path of the page."""
        return f"Report({show(str(self.path))})"

    def _repr_html_(self) -> str:
        # In a frame, so that the page's style does not change the notebook.
        page = escape(self.path.read_text(encoding="utf-8"))
        return (
            f'<iframe srcdoc="{page}" width="100%" height="{_FRAME_HEIGHT}"'
            ' style="border: 0"></iframe>'
        )


class Run:
    """A finished run: its results, its classifier and its report.

    `sweet_jax.train` returns one; `Run(workdir)` opens a run of an earlier process or
    of the command line.

    Attributes:
        workdir: the directory of its files.
        results: the content of results.json (`report.results_schema` lists its fields).
    """

    def __init__(self, workdir: str | Path, owner: object = None) -> None:
        """Reads the results.

        Args:
            workdir: work directory of a finished run.
            owner: an object to keep alive with this one, such as a temporary folder.

        Raises:
            ReportError: the directory does not contain a finished run, or its results
                are damaged.
        """
        self.workdir, self._owner = Path(workdir), owner
        self.results: dict[str, Any] = read_results(self.workdir)

    @functools.cached_property
    def classifier(self) -> "AdaptiveClassifier":
        """The trained classifier, loaded on first use.

        Raises:
            ModelFolderError: the model folder is missing or altered.
        """
        from sweet_jax.serving.load import load

        return load(self.workdir / MODEL)

    @property
    def report(self) -> Report:
        """The report page with all tables and pictures."""
        return Report(self.workdir / report.PAGE)

    def __repr__(self) -> str:
        """Returns the tables of results that the command prints."""
        return (
            f"{report.format_run(self.workdir)}\n\n"
            f"report: {show(str(self.report.path))}\n"
            f"model:  {show(str(self.workdir / MODEL))}"
        )

    def _repr_html_(self) -> str:
        return f'<pre style="line-height: 1.3">{escape(repr(self))}</pre>'
