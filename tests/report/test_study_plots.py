"""Pictures of a study have names of their own, whatever tasks are called."""

from typing import Any

import pytest
from study_records import add_size, make_view

from sweet_jax.report.study_plots import plot_sizes, plot_study


@pytest.mark.long
def test_several_sizes_have_a_picture_and_names_of_their_own(record: dict[str, Any]):
    make_view(record)
    assert plot_sizes(record) == []
    add_size(record, 1000)
    add_size(record, 1000)  # of another spelling of the same name
    record["groups"][2]["encoder"] = "tiny!"
    names = [picture.name for _, picture in plot_study(record)]
    assert names[::2] == [
        "study",
        "curves-rotten_tomatoes-tiny-n1000",
        "curves-rotten_tomatoes-tiny-n1000-2",
    ]
    assert [p.name for p in plot_sizes(record)] == ["sizes-rotten_tomatoes-tiny-n250"]
