"""The pictures of PAPA are drawn, and depend on the numbers alone."""

import numpy as np
from papa_records import make_papa_record

from sweet_jax.report.papa_plots import plot_constants, plot_papa, plot_scores


def test_every_ranking_has_a_picture_beside_the_scores():
    pictures = plot_papa(make_papa_record())
    assert [p.name for p in pictures] == ["papa_scores", "papa_heads_gates"]
    assert all(p.png.startswith(b"\x89PNG") for p in pictures)
    assert "1.0, 1.1, 1.2, 1.3, 0.0" in pictures[1].caption


def test_the_same_record_gives_the_same_bytes_and_no_interval_is_no_bar():
    record = make_papa_record()
    assert plot_scores(record).png == plot_scores(record).png
    for curve in record["curves"]:
        for point in curve["points"]:
            point["interval"] = None
    assert plot_scores(record).png != plot_scores(make_papa_record()).png


def test_constants_of_every_head_are_drawn():
    constants = np.random.default_rng(0).random((2, 4, 16, 16)).astype(np.float32)
    constants[0, 0] = 0  # No row had these slots.
    picture = plot_constants(constants)
    assert picture.png.startswith(b"\x89PNG")
    assert "2 by 4" in picture.alt
