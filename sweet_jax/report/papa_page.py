"""The page, the terminal summary and the Markdown of PAPA, from papa.json."""

from html import escape
from pathlib import Path
from typing import Any

from sweet_jax.report import html, tables
from sweet_jax.report.files import write_file
from sweet_jax.report.papa_plots import plot_papa
from sweet_jax.report.papa_record import list_verdicts, read_papa_record
from sweet_jax.report.style import Picture
from sweet_jax.report.tables import Table

PAGE, MARKDOWN = "papa.html", "papa.md"


def write_papa_report(folder: Path, constants: Picture) -> list[Path]:
    """Writes plots/*.png, papa.md and papa.html of a finished analysis.

    Args:
        folder: its work directory.
        constants: the picture of the constants, which papa.json does not hold.

    Returns:
        The written files, the page last.

    Raises:
        FileError: there is no papa.json, or it is damaged or of a newer schema.
    """
    record = read_papa_record(folder)
    pictures = [*plot_papa(record), constants]
    written = [
        write_file(folder / "plots" / f"{picture.name}.png", picture.png)
        for picture in pictures
    ]
    markdown = format_papa_markdown(record).encode()
    page = make_papa_html(record, pictures).encode()
    return [
        *written,
        write_file(folder / MARKDOWN, markdown),
        write_file(folder / PAGE, page),
    ]


def format_papa(folder: Path) -> str:
    """Returns the terminal summary of a finished analysis."""
    record = read_papa_record(folder)
    lines = tables.wrap(_describe(record))
    for table in _list_tables(record):
        lines += ["", *tables.wrap(table.caption), *tables.format_table(table)]
    lines.append("")
    for claim, verdict in list_verdicts(record):
        lines += tables.wrap(f"{claim}. {verdict}")
    return "\n".join(lines)


def format_papa_markdown(record: dict[str, Any]) -> str:
    """Returns papa.md."""
    title = f"# PAPA: {record['encoder']} on {record['task']}"
    parts = [title, _describe(record)]
    parts.append("![score against dynamic heads](plots/papa_scores.png)")
    parts += [tables.format_markdown(table) for table in _list_tables(record)]
    parts.append("\n".join(f"- {c}. {v}" for c, v in list_verdicts(record)))
    if record["departures"]:
        parts.append("Different from the released code:")
        parts.append("\n".join(f"- {text}" for text in record["departures"]))
    return "\n\n".join(parts) + "\n"


def make_papa_html(record: dict[str, Any], pictures: list[Picture]) -> str:
    """Returns the page."""
    title = f"PAPA: {record['encoder']} on {record['task']}"
    verdicts = "".join(
        f"<li><strong>{escape(claim)}.</strong> {escape(verdict)}</li>"
        for claim, verdict in list_verdicts(record)
    )
    first, *others = pictures
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(_describe(record))}</p>',
        html.render_picture(first),
        *(html.render_table(table) for table in _list_tables(record)),
        f"<h2>The paper's claims</h2>\n<ul>{verdicts}</ul>",
        *(html.render_picture(picture) for picture in others),
        "<h2>Different from the released code</h2>" if record["departures"] else "",
        html.render_notes(record["departures"]),
        "<h2>Rows and settings</h2>",
        html.render_notes(record["notes"]),
        html.render_table(_make_facts(record), wrap=True),
    ]
    return html.make_page(title, parts)


def _describe(record: dict[str, Any]) -> str:
    """Returns in a sentence what was measured."""
    total = record["num_layers"] * record["num_heads"]
    form = "as the released code does" if record["faithful_release"] else "sane layout"
    scored = "test rows"
    if record["score_on"] == "calibration":
        scored = "calibration rows (part 0, for choosing settings)"
    return (
        f"{record['encoder']} ({record['num_layers']} layers of {record['num_heads']}"
        f" heads, {total} in all), frozen, on {record['task']}: rows of"
        f" {record['length']} slots ({form}); probes on all hidden states, trained on"
        f" {record['rows']['train']:,} rows, {len(record['seeds'])} seed(s);"
        f" {tables.metric_name(record)} on {record['rows']['scored']:,} {scored};"
        f" majority class {tables.format_number(record['majority'])}."
    )


def _list_tables(record: dict[str, Any]) -> list[Table]:
    """Returns a table for each curve."""
    total = record["num_layers"] * record["num_heads"]
    found = []
    for curve in record["curves"]:
        rows = tuple(
            (
                f"{point['constant_heads']}",
                f"{point['dynamic_heads']} ({point['dynamic_heads'] / total:.0%})",
                tables.format_number(point["score"]),
                _show_interval(point["interval"]),
                "-" if point["drop"] is None else f"{point['drop']:.1%}",
                _show_percent(point["drop_interval"]),
                " ".join(map(str, point["dynamic_by_layer"])),
            )
            for point in curve["points"]
        )
        header = ("constant", "dynamic", tables.metric_name(record), "95 % interval")
        header += ("relative drop", "95 % interval", "dynamic heads by layer")
        caption = (
            f"Heads ranked by {curve['ranking']}, constants: {curve['constants']}."
            " Intervals are for new seeds and new rows."
        )
        found.append(Table(caption, header, rows, num_text_columns=0))
    return found


def _show_interval(interval: list[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _show_percent(interval: list[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.1%} to {interval[1]:.1%}"


def _make_facts(record: dict[str, Any]) -> Table:
    points = sum(s for name, s in record["seconds"].items() if name.startswith("k"))
    steps = {n: s for n, s in record["seconds"].items() if not n.startswith("k")}
    facts = {
        **{f"papa.{name}": value for name, value in record["settings"].items()},
        "seconds": {**steps, "all points": round(points, 1)},
        "versions": record["versions"],
    }
    rows = tuple((name, tables.format_plain(value)) for name, value in facts.items())
    return Table(
        "What the analysis worked on, and what it took", ("fact", "value"), rows
    )
