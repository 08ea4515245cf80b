"""The page, the terminal summary and the Markdown of a study, from study.json alone."""

from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sweet_jax.report import html, tables
from sweet_jax.report.files import write_file
from sweet_jax.report.study_plots import plot_sizes, plot_study
from sweet_jax.report.study_record import (
    View,
    list_headlines,
    list_views,
    read_study_record,
    show_names,
)
from sweet_jax.report.study_tables import (
    list_main_tables,
    make_area_table,
    make_budget_table,
    make_cascade_difference_table,
    make_cascade_table,
    make_cell_table,
    make_choice_table,
    make_claim_table,
    make_difference_table,
    make_exit_table,
    make_size_tables,
    make_training_table,
)
from sweet_jax.report.study_words import Paragraph, describe_study
from sweet_jax.report.style import Picture
from sweet_jax.report.tables import Table

STUDY_PAGE = "study.html"


def write_study_report(folder: Path) -> list[Path]:
    """Writes plots/*.png, study.md and study.html of a study from its study.json.

    Returns:
        The written files, the page last.

    Raises:
        ReportError: study.json is not there, damaged or of a newer schema.
    """
    record = read_study_record(folder)
    by_view: dict[str, list[Picture]] = {}
    for view, picture in plot_study(record):
        by_view.setdefault(view.title, []).append(picture)
    sizes = plot_sizes(record)
    pictures = [picture for part in by_view.values() for picture in part] + sizes
    written = [
        write_file(folder / "plots" / f"{picture.name}.png", picture.png)
        for picture in pictures
    ]
    page = make_study_html(record, by_view, sizes)
    markdown = format_study_markdown(record, "plots/study.png" if by_view else None)
    return [
        *written,
        write_file(folder / "study.md", markdown.encode()),
        write_file(folder / STUDY_PAGE, page.encode()),
    ]


def make_study_html(
    record: dict[str, Any], by_view: dict[str, list[Picture]], sizes: list[Picture]
) -> str:
    """Returns the page.

    Args:
        record: study.json.
        by_view: pictures by the title of their view.
        sizes: pictures of score against training examples.
    """
    parts = [f"<h1>{escape(record['name'])}</h1>"]
    parts += [_render_paragraph(paragraph) for paragraph in describe_study(record)]
    parts += [f'<p class="note">{escape(note)}</p>' for note in make_notes(record)]
    headlines = {view.title for view in list_headlines(record)}
    for view in list_views(record):
        part = _render_view(record, view, by_view[view.title])
        if view.title in headlines:
            parts += part
        else:
            parts.append(html.render_details(view.title, part))
    parts += [html.render_picture(picture) for picture in sizes]
    parts += [html.render_table(table) for table in make_size_tables(record)]
    last = (make_choice_table(record), make_cell_table(record))
    parts += [html.render_table(t, wrap=True) for t in last if t is not None]
    return html.make_page(record["name"], parts)


def format_study(record: dict[str, Any]) -> str:
    """Returns the summary of a study for the terminal, at most 100 columns wide.

    Args:
        record: study.json.
    """
    record = show_names(record)
    lines = tables.wrap(f"study {record['name']}")
    for paragraph in describe_study(record):
        lines += ["", *tables.wrap(paragraph.lead, "")]
        for sentence in paragraph.sentences:
            lines += tables.wrap(f"- {sentence.text}")
    for table in list_main_tables(record):
        lines += ["", *tables.wrap(table.caption), *_fold_table(table)]
    for note in make_notes(record):
        lines += ["", *tables.wrap(f"note: {note}")]
    return "\n".join(lines)


def format_study_markdown(record: dict[str, Any], picture: str | None) -> str:
    """Returns the title, picture, words and main tables of a study in Markdown.

    Args:
        record: study.json.
        picture: path of the study's picture; None where there is none.
    """
    parts = [f"# Study {record['name']}"]
    if picture is not None:
        parts.append(f"![Score against cost of every method]({quote(picture)})")
    for paragraph in describe_study(record):
        items = "\n".join(f"- {sentence.text}" for sentence in paragraph.sentences)
        parts += filter(None, (paragraph.lead, items))
    parts += [tables.format_markdown(table) for table in list_main_tables(record)]
    parts += make_notes(record)
    return "\n\n".join(parts) + "\n"


def make_notes(record: dict[str, Any]) -> list[str]:
    """Returns what a reader must know before believing an interval."""
    level = f"{100 * record['level']:g} %"
    notes = [
        f"Differences are paired: the same seeds and test examples. Their {level}"
        " intervals over seeds and test examples draw the examples"
        f" {record['num_draws']:,} times, the same for all seeds and methods, and take"
        " seeds with Student's t. Each holds by itself; of twenty differences that are"
        " none one is expected to exclude 0. Points are hundredths of the score.",
        "A claim holds where it does at each exit or speed-up that it is about; one of"
        " them, one task or the mean is enough to refute it. The mean's verdict, or the"
        " area's, is of that number alone and says nothing of a single exit.",
        "Cascades are compared at equal cost: every method's threshold is set by what"
        " it costs on the test examples, and no label has a say in it. What thresholds"
        " that are chosen beforehand give, and cost, is in the table of cascades in"
        " use.",
        f"Fast is a speed-up of {record['fast_from']:g} and more, slow up to"
        f" {record['slow_to']:g}. Early exits are the first half. Level, and no worse,"
        f" is meant to within {100 * record['margin']:g} point.",
    ]
    for view in list_views(record):
        if view.is_average:
            notes += [
                f"{view.title}: {row['label']} is averaged over"
                f" {', '.join(row['tasks'])} alone."
                for row in view.methods
                if row["tasks"] != view.content["tasks"]
            ]
            continue
        notes += [
            f"{view.title}: {view.metric} of {method['label']}, seed {row['seed']},"
            f" exit {', '.join(map(str, row['exits']))} is undefined (it answers one"
            " class) and counts as 0."
            for method in view.methods
            for row in method["degenerate"]
        ]
    return notes


def _render_paragraph(paragraph: Paragraph) -> str:
    items = "".join(
        f"<li>{escape(s.claim)}: <strong>{escape(s.verdict)}</strong>;"
        f" {escape(s.numbers)}</li>"
        for s in paragraph.sentences
    )
    return f"<p>{escape(paragraph.lead)}</p>" + (f"<ul>{items}</ul>" if items else "")


def _render_view(
    record: dict[str, Any], view: View, pictures: list[Picture]
) -> list[str]:
    parts = [html.render_picture(picture) for picture in pictures]
    shown = [make_exit_table(view)]
    if view.content["differences"]:
        shown.append(make_difference_table(view))
    shown.append(make_cascade_table(view))
    if view.content["differences"]:
        shown.append(make_cascade_difference_table(view))
    shown.append(make_budget_table(view))
    if len(view.content["criteria"]) > 1:
        shown.append(make_area_table(view))
    if not view.is_average:
        shown.append(make_training_table(view))
    parts += [html.render_table(table) for table in shown]
    if view.content["findings"]:
        claims = html.render_table(make_claim_table(view, record))
        parts.append(html.render_details("Comparisons behind the claims", [claims]))
    return parts


def _fold_table(table: Table) -> list[str]:
    """Returns the table's lines; long texts of its last column go below their row."""
    lines = tables.format_table(table)
    return [part for line in lines for part in tables.wrap(line) or [""]]
