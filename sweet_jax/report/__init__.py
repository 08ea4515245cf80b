"""Reports from result files alone: pictures, tables, a page. Never imports jax."""

import json
from collections.abc import Sequence
from pathlib import Path

from sweet_jax.report.baselines import describe_low_exits, make_baseline_table
from sweet_jax.report.comparison import (
    Comparison,
    check_comparable,
    choose_target,
    format_comparison,
    make_comparison,
)
from sweet_jax.report.files import (
    ReportError,
    read_conflict,
    read_results,
    read_run,
    write_file,
)
from sweet_jax.report.gradients import describe_conflict
from sweet_jax.report.html import make_comparison_html, make_report_html
from sweet_jax.report.plots import plot_run
from sweet_jax.report.study_page import (
    STUDY_PAGE,
    format_study,
    format_study_markdown,
    write_study_report,
)
from sweet_jax.report.study_record import read_study_record, show_names
from sweet_jax.report.tables import (
    format_plain,
    format_summary,
    format_table,
    wrap,
)

PAGE = "report.html"

__all__ = [
    "PAGE",
    "STUDY_PAGE",
    "ReportError",
    "format_comparison",
    "format_run",
    "format_study",
    "format_study_markdown",
    "format_summary",
    "read_study_record",
    "show_names",
    "write_comparison",
    "write_report",
    "write_study_report",
]


def format_run(workdir: Path) -> str:
    """Returns the terminal summary of a finished run, with what else was measured.

    Raises:
        ReportError: as `write_report`.
    """
    results = read_results(workdir)
    lines = [format_summary(results)]
    baselines = make_baseline_table(results)
    if baselines.rows:
        lines += ["", *wrap(baselines.caption), *format_table(baselines)]
    if warning := describe_low_exits(results):
        lines += ["", *wrap(f"warning: {warning}")]
    conflict = read_conflict(workdir, results)
    if conflict is not None:
        lines += wrap(f"gradient conflict: {describe_conflict(conflict)}")
    for name, summary in results.get("analyses", {}).items():
        lines += wrap(f"{name}: {format_plain(summary)}")
    return "\n".join(lines)


def write_report(workdir: Path) -> list[Path]:
    """Writes plots/*.png and report.html of a finished run into its work directory.

    Returns:
        The written files, the page last.

    Raises:
        ReportError: the directory holds no finished run, or a file is damaged.
    """
    run = read_run(workdir)
    pictures = plot_run(run)
    written = [
        write_file(workdir / "plots" / f"{picture.name}.png", picture.png)
        for picture in pictures
    ]
    page = make_report_html(run, pictures).encode()
    return [*written, write_file(workdir / PAGE, page)]


def write_comparison(
    workdirs: Sequence[Path], output: Path | None = None
) -> tuple[Comparison, list[Path]]:
    """Writes the curves and numbers of several runs of one task side by side.

    Args:
        workdirs: finished runs.
        output: directory to write to; None: `runs/comparison-TASK-DIGEST`, where the
            digest is that of the runs' paths.

    Returns:
        The comparison and the written files, the page last.

    Raises:
        ReportError: a run is not readable, the runs are of different tasks, or the
            directory holds something else.
    """
    runs = [read_run(workdir) for workdir in workdirs]
    check_comparable(runs)
    target = choose_target(runs, output)
    comparison = make_comparison(runs)
    record = json.dumps(comparison.record, indent=1, ensure_ascii=False).encode()
    picture = comparison.picture
    page = make_comparison_html(
        comparison.title, comparison.notes, [picture], comparison.tables
    )
    return comparison, [
        write_file(target / "comparison.json", record),
        write_file(target / "plots" / f"{picture.name}.png", picture.png),
        write_file(target / "comparison.html", page.encode()),
    ]
