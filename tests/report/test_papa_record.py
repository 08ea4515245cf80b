"""papa.json is checked when it is read; the claims are judged by intervals."""

import pytest
from papa_records import make_papa_record, write_papa_record

from sweet_jax.report.papa_record import list_verdicts, read_papa_record
from sweet_jax.system.files import FileError, write_json


def test_a_record_is_read_as_it_was_written(tmp_path):
    assert read_papa_record(write_papa_record(tmp_path)) == make_papa_record()


def change(path, value):
    """Returns a record with a value changed at a path such as `curves.0.points`."""
    record = make_papa_record()
    *parents, name = path.split(".")
    place = record
    for parent in parents:
        place = place[int(parent) if parent.isdecimal() else parent]
    place[name] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 2, "has schema 2"),
        ("curves", [], "damaged"),
        ("curves.0.points", [], "damaged"),
        ("seeds", "0", "damaged"),
        ("num_layers", 0, "damaged"),
        ("rankings.gates.scores", [[1.0] * 4], "a ranking of heads"),
        ("rankings.gates.ranks", [[1] * 3] * 2, "a ranking of heads"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, path, value, message):
    with pytest.raises(FileError, match=message):
        read_papa_record(write_papa_record(tmp_path, change(path, value)))


def test_an_altered_or_missing_record_is_refused(tmp_path):
    with pytest.raises(FileError, match="holds no finished analysis"):
        read_papa_record(tmp_path)
    write_papa_record(tmp_path)
    write_json(tmp_path / "papa.json", change("majority", 0.9))
    with pytest.raises(FileError, match="altered or damaged"):
        read_papa_record(tmp_path)


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        ((0.1, (0.05, 0.15)), "within the interval"),
        ((0.2, (0.1, 0.3)), "below the interval: more is lost"),
        ((0.0, (-0.1, 0.05)), "above the interval: less is lost"),
        ((0.1, None), "One seed has no interval"),
        ((None, None), "a relative drop is not defined"),
    ],
)
def test_the_loss_without_any_attention(whole, expected):
    (claim, verdict), *_ = list_verdicts(make_papa_record(whole=whole))
    assert claim.startswith("P1")
    assert expected in verdict


@pytest.mark.parametrize(
    ("half", "expected"),
    [
        ((0.01, (-0.02, 0.04)), "No loss is shown; it is at most 4.0%"),
        ((0.03, (0.02, 0.04)), "Something is lost, at most 4.0%"),
        ((-0.03, (-0.04, -0.02)), "Nothing is lost; the score rises"),
        ((0.01, None), "One seed has no interval"),
        ((None, None), "loss in score is 0.010"),
    ],
)
def test_the_loss_with_half_of_the_attention(half, expected):
    _, (claim, verdict), (other, missing) = list_verdicts(make_papa_record(half=half))
    assert claim.startswith("P2")
    assert expected in verdict
    assert other.startswith("P3")
    assert "several" in missing


def test_points_that_were_not_measured_have_no_verdict():
    record = make_papa_record()
    record["curves"][0]["points"] = record["curves"][0]["points"][:1]
    verdicts = [verdict for _, verdict in list_verdicts(record)]
    assert all(verdict.startswith("Not measured") for verdict in verdicts)
