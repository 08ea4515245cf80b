"""A self-contained page: pictures and tables in one file, no script, no network."""

import base64
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from sweet_jax.report import gradients, tables
from sweet_jax.report.baselines import describe_low_exits, make_baseline_table
from sweet_jax.report.files import Run
from sweet_jax.report.style import Picture
from sweet_jax.report.tables import Table

# Rows of the table of classes that are shown without a click.
_MOST_CLASSES = 20
_CSS = """
:root { color-scheme: light; --ink: #222; --muted: #5f5f5f; --line: #e3e3e3; }
* { box-sizing: border-box; }
body { margin: 0; background: #fafafa; color: var(--ink); line-height: 1.45;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 34px 0 8px; }
.lead { color: var(--muted); margin: 4px 0 18px; overflow-wrap: anywhere; }
.flag { border-left: 4px solid #b45309; background: #fff7ed; padding: 10px 14px;
  margin: 0 0 18px; }
.figures { display: grid; gap: 10px; margin: 0 0 8px;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.figures div { background: #fff; border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 14px; }
.figures dt { color: var(--muted); font-size: .8rem; }
.figures dd { margin: 0; font-size: 1.35rem; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.figures small { display: block; color: var(--muted); font-size: .8rem;
  font-weight: 400; }
figure { margin: 0; background: #fff; border: 1px solid var(--line);
  border-radius: 8px; padding: 12px; }
img { display: block; width: 100%; height: auto; }
figcaption, .note { color: var(--muted); font-size: .86rem; }
figcaption { padding: 8px 4px 0; }
.scroll { overflow-x: auto; margin: 14px 0; }
table { border-collapse: collapse; background: #fff; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); font-size: .86rem;
  padding-bottom: 6px; }
th, td { padding: 5px 12px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid #999; font-weight: 600; }
.name { text-align: left; font-weight: 400; }
tr.strong td, tr.strong th { font-weight: 650; background: #f4f4f4; }
.wrap td { white-space: normal; text-align: left; overflow-wrap: anywhere; }
details { margin: 10px 0; } summary { cursor: pointer; }
code { font: .88em ui-monospace, Menlo, Consolas, monospace; }
@media print { body { background: #fff; } figure, .scroll { break-inside: avoid; } }
"""


def make_report_html(run: Run, pictures: Sequence[Picture]) -> str:
    """Returns the page of one run."""
    results = run.results
    by_name = {picture.name: picture for picture in pictures}
    splits = tables.format_plain(results["splits"])
    subtitle = [
        f"encoder {results['encoder']} ({results['num_layers']} layers)",
        f"exits after layers {tables.format_plain(results['exit_layers'])}",
        f"seed {results['seed']}",
        f"rows: {splits}",
        f"score: {tables.metric_name(results)}",
    ]
    parts = [
        f"<h1>{escape(results['method_label'])} on {escape(results['task'])}</h1>",
        f'<p class="lead">{escape(" · ".join(subtitle))}</p>',
        _flag(results),
        _warn(results),
        _key_figures(results),
        f'<p class="note">Cost: {escape(results["cost_formula"])}</p>',
        render_notes(results["notes"]),
        render_picture(by_name["speed_accuracy"]),
        *_scores(results),
        *_baselines(results),
        *_classes(results),
        *_costs(results),
        render_details("Threshold grids", [_grid(results, c) for c in run.criteria]),
        *_extra_tests(results),
        *(render_picture(p) for p in pictures if p.name != "speed_accuracy"),
        *_gradients(run),  # behind their picture, the last
        *_analyses(results),
        "<h2>Settings and data</h2>",
        render_table(_facts_table(results), wrap=True),
        _settings(run),
    ]
    return make_page(f"{results['method_label']} on {results['task']}", parts)


def make_comparison_html(
    title: str,
    notes: Sequence[str],
    pictures: Sequence[Picture],
    parts: Sequence[Table],
) -> str:
    """Returns the page of several runs."""
    body = [f"<h1>{escape(title)}</h1>", render_notes(notes)]
    body += [render_picture(picture) for picture in pictures]
    body += ["<h2>Numbers</h2>", *(render_table(table) for table in parts)]
    return make_page(title, body)


def make_page(title: str, parts: Sequence[str]) -> str:
    """Returns a whole page around the parts, which are HTML already."""
    body = "\n".join(filter(None, parts))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _flag(results: dict[str, Any]) -> str:
    if not results["faithful_release"]:
        return ""
    return (
        '<p class="flag"><strong>faithful_release.</strong> This run reproduces the'
        " released code of the paper, its defects included: among them calibration on"
        " the test split, so its scores are not comparable with those of other"
        " runs. What still differs from that code is in docs/released-code.md.</p>"
    )


def _warn(results: dict[str, Any]) -> str:
    warning = describe_low_exits(results)
    if not warning:
        return ""
    return f'<p class="flag"><strong>Warning:</strong> {escape(warning)}</p>'


def _key_figures(results: dict[str, Any]) -> str:
    first, oracle = results["exits"][0], results["oracle_exit"]
    number = tables.format_number
    figures = [
        (
            "Full depth",
            number(results["full"]),
            "every layer, last exit",
        ),
        (
            f"Exit {first['exit']} alone",
            number(first["score"]),
            f"speed-up {tables.format_speedup(first['cost_fraction'])}",
        ),
    ]
    for criterion, points in list(results["at_speedup"].items())[:1]:
        figures += [
            (
                f"At {point['target']:g}x ({criterion})",
                number(point["score"]),
                f"realised {tables.format_speedup(point['cost_fraction'])}",
            )
            for point in points
            if point["target"] == 2
        ]
        area = number(results["area"][criterion])
        figures.append((f"Area ({criterion})", area, "mean best score over all costs"))
    figures += [
        ("Majority class", number(results["majority"]), "no model at all"),
        (
            "Oracle exit",
            number(oracle["score"]),
            f"at cost {number(oracle['cost_fraction'])}: an upper bound",
        ),
    ]
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}"
        f"<small>{escape(remark)}</small></dd></div>"
        for name, value, remark in figures
    )
    return f'<dl class="figures">{cells}</dl>'


def render_notes(notes: Sequence[str]) -> str:
    """Returns a list of remarks; nothing where there is none."""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="note">{items}</ul>' if items else ""


def render_picture(picture: Picture) -> str:
    """Returns a heading and the picture, inlined, with its caption."""
    data = base64.b64encode(picture.png).decode("ascii")
    return (
        f"<h2>{escape(picture.title)}</h2>\n<figure>"
        f'<img alt="{escape(picture.alt)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def render_table(table: Table, wrap: bool = False) -> str:
    """Returns the table; with `wrap`, long texts in its cells break."""

    def cell(tag: str, column: int, text: str, scope: str) -> str:
        kind = ' class="name"' if column < table.num_text_columns else ""
        return f"<{tag}{scope}{kind}>{escape(text)}</{tag}>"

    head = "".join(
        cell("th", i, text, ' scope="col"') for i, text in enumerate(table.header)
    )
    body = ""
    for position, row in enumerate(table.rows):
        strong = ' class="strong"' if position in table.strong_rows else ""
        cells = cell("th", 0, row[0], ' scope="row"')
        cells += "".join(cell("td", i, text, "") for i, text in enumerate(row[1:], 1))
        body += f"<tr{strong}>{cells}</tr>\n"
    style = ' class="wrap"' if wrap else ""
    return (
        f'<div class="scroll"><table{style}><caption>{escape(table.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def _scores(results: dict[str, Any]) -> list[str]:
    """Returns what was measured on one test set, in tables."""
    return [
        render_table(tables.make_exit_table(results)),
        render_table(tables.make_speedup_table(results)),
    ]


def _baselines(results: dict[str, Any]) -> list[str]:
    table = make_baseline_table(results)
    return [render_table(table)] if table.rows else []


def _costs(results: dict[str, Any]) -> list[str]:
    table = tables.make_cost_table(results)
    return [render_table(table)] if table.rows else []


def _extra_tests(results: dict[str, Any]) -> list[str]:
    """Returns a heading, the areas and the tables of every further test set."""
    parts = []
    for name, test in tables.list_extra_tests(results).items():
        areas = ", ".join(
            f"{criterion} {tables.format_number(area)}"
            for criterion, area in test["area"].items()
        )
        parts += [
            f"<h2>Test set {escape(name)}</h2>",
            f'<p class="note">Area: {escape(areas)}</p>',
            *_scores(test),
        ]
    return parts


def _gradients(run: Run) -> list[str]:
    """Returns the tables of gradient conflict, where three exits meet somewhere."""
    if run.conflict is None:
        return []
    layers = gradients.make_layer_table(run.conflict)
    if not layers.rows:
        return []
    kinds = render_table(gradients.make_kind_table(run.conflict))
    return [render_table(layers), render_details("By kind of parameters", [kinds])]


def _analyses(results: dict[str, Any]) -> list[str]:
    """Returns a table for each further analysis that left a summary."""
    return [
        render_table(
            Table(
                f"Analysis {name}",
                ("measured", "value"),
                tuple((key, tables.format_plain(v)) for key, v in summary.items()),
            ),
            wrap=True,
        )
        for name, summary in results.get("analyses", {}).items()
    ]


def render_details(title: str, parts: Sequence[str]) -> str:
    """Returns parts that are folded until a reader opens them."""
    content = "\n".join(parts)
    return f"<details><summary>{escape(title)}</summary>\n{content}\n</details>"


def _classes(results: dict[str, Any]) -> list[str]:
    """Returns the table of classes, folded where it is long; nothing without one."""
    table = tables.make_class_table(results)
    if not table.rows:
        return []
    if len(table.rows) <= _MOST_CLASSES:
        return [render_table(table)]
    title = f"Scores of all {len(table.rows)} classes"
    return [render_details(title, [render_table(table)])]


def _grid(results: dict[str, Any], criterion: str) -> str:
    return render_table(tables.make_grid_table(results, criterion))


def _facts_table(results: dict[str, Any]) -> Table:
    # Per field: the words for it, and what makes a text of it.
    facts: dict[str, tuple[str, Callable[[Any], str]]] = {
        "label_names": ("labels", tables.format_plain),
        "columns": ("columns read", tables.format_plain),
        "origin": ("where the rows come from", _format_origin),
        "truncated_rows": ("rows cut to the longest length", tables.format_plain),
        "padded_over_real": ("padded / real tokens", tables.format_plain),
        "parameters": ("parameters", lambda n: f"{n / 1e6:.4g} M"),
        "training_flops": ("arithmetic of training", _format_flops),
        "training_temporary_bytes": ("temporaries of a train step", _format_bytes),
        "programs": ("compiled programs", tables.format_plain),
        "seconds": ("seconds", tables.format_plain),
        "versions": ("versions", tables.format_plain),
    }
    rows = tuple(
        (words, make_text(results[field]))
        for field, (words, make_text) in facts.items()
        if field in results  # Results of kept studies lack the columns.
    )
    return Table("What the run worked on, and what it took", ("fact", "value"), rows)


def _format_origin(origin: dict[str, str]) -> str:
    return "; ".join(f"{split}: {source}" for split, source in origin.items())


def _format_flops(flops: float) -> str:
    # The compiler of some backends does not count: 0 is none, not nothing done.
    return f"{flops / 1e12:.4g} TFLOP" if flops else "not known"


def _format_bytes(size: int) -> str:
    return f"{size / 1e6:.4g} MB" if size else "not known"


def _settings(run: Run) -> str:
    if not run.settings:
        return ""
    rows = tuple(
        (name, tables.format_plain(value)) for name, value in run.settings.items()
    )
    table = Table("As in config.json", ("setting", "value"), rows)
    return render_details("All settings", [render_table(table, wrap=True)])
