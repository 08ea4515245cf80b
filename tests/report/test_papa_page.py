"""The page, the Markdown and the summary of PAPA."""

import numpy as np
from papa_records import make_papa_record, write_papa_record

from sweet_jax.report.papa_page import format_papa, write_papa_report
from sweet_jax.report.papa_plots import plot_constants


def write(folder):
    write_papa_record(folder)
    picture = plot_constants(np.full((2, 4, 8, 8), 0.5, np.float32))
    return write_papa_report(folder, picture)


def test_the_page_has_everything_and_escapes_names(tmp_path):
    *pictures, markdown, page = write(tmp_path)
    assert [p.name for p in pictures] == [
        "papa_scores.png",
        "papa_heads_gates.png",
        "papa_constants.png",
    ]
    text = page.read_text()
    assert text.count("<img") == 3
    assert "rotten_<b>" not in text
    assert "rotten_&lt;b&gt;tomatoes" in text
    for part in ("P1", "P2", "P3", "Different from the released code", "a note"):
        assert part in text
    assert "all points 7" in text
    lines = markdown.read_text().splitlines()
    assert lines[0] == "# PAPA: minilm-l6 on rotten_<b>tomatoes"
    assert "- papa.num_epochs is 5 (released: 15)" in lines


def test_the_summary_fits_the_terminal(tmp_path):
    text = format_papa(write_papa_record(tmp_path))
    assert max(map(len, text.splitlines())) <= 100
    assert "Heads ranked by gates, constants: uniform" in text
    assert "10.0%" in text


def test_a_single_seed_has_no_intervals(tmp_path):
    record = make_papa_record()
    for curve in record["curves"]:
        for point in curve["points"]:
            for name in [n for n in point if n.endswith("interval")]:
                point[name] = None
    text = format_papa(write_papa_record(tmp_path, record))
    assert "no interval" in text
