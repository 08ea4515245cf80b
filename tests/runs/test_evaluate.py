"""Labelled rows for a finished run, from files and folders, by the run's labels."""

import pytest

from sweet_jax.data.examples import make_examples
from sweet_jax.data.find_columns import Columns
from sweet_jax.runs.evaluate import load_table
from sweet_jax.settings.rules import SettingsError

SENTIMENT = Columns(label="sentiment")
ROWS = "text,sentiment\na film,pos\na plot,pos\n"


def load_rows(data):
    return make_examples(load_table(data, SENTIMENT), ("neg", "pos"), False)


def test_a_file_of_one_class_is_read(tmp_path):
    (tmp_path / "one.csv").write_text(ROWS)
    rows = load_rows(str(tmp_path / "one.csv"))
    assert rows.labels.tolist() == [1, 1]


def test_a_folder_with_a_test_file_alone_and_another_label_column(tmp_path):
    (tmp_path / "test.csv").write_text(ROWS)
    rows = load_rows(str(tmp_path))
    assert rows.texts == ("a film", "a plot")
    (tmp_path / "train.csv").write_text("text,sentiment\nmine,neg\n")
    assert load_rows(str(tmp_path)).texts == rows.texts


@pytest.mark.parametrize("name", ["test.csv", ""])
def test_a_label_that_training_lacks_is_named_with_its_line(tmp_path, name):
    (tmp_path / "test.csv").write_text(ROWS + "so so,Neg\n")
    message = r"^test\.csv line 4 has the label 'Neg'.*neg, pos: is it 'neg'\?$"
    with pytest.raises(ValueError, match=message):
        load_rows(str(tmp_path / name))


def test_columns_are_asked_for_once_with_the_flags_of_the_command(tmp_path):
    (tmp_path / "a.csv").write_text("title,body,stars\na,b,1\n")
    message = (
        r"a\.csv has 2 columns that may hold the texts \('body', 'title'\) and no"
        r" label column with a usual name such as 'label'; its columns are 'title'"
        r" \('a'\), 'body' \('b'\), 'stars' \('1'\): set --text_columns=body"
        r" --label_column=stars$"
    )
    with pytest.raises(ValueError, match=message):
        load_table(str(tmp_path / "a.csv"))
    # The advice leads out.
    table = load_table(str(tmp_path / "a.csv"), Columns(("body",), "stars"))
    assert (table.texts, table.labels) == (["b"], ["1"])


def test_the_label_is_never_read_as_text(tmp_path):
    (tmp_path / "a.csv").write_text(ROWS)
    with pytest.raises(ValueError, match="'sentiment' is the column of labels"):
        load_table(str(tmp_path / "a.csv"), Columns(("text", "sentiment"), "sentiment"))
    with pytest.raises(ValueError, match="--text_columns names 'text' twice"):
        load_table(str(tmp_path / "a.csv"), Columns(("text", "text"), "sentiment"))


def test_a_folder_of_plain_text_is_one_line(tmp_path):
    (tmp_path / "a.txt").write_text("no table")
    with pytest.raises(ValueError, match="has no label column") as raised:
        load_table(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_a_file_that_does_not_exist_is_one_line_with_the_flag():
    with pytest.raises(SettingsError, match=r"^--data=absent.csv: there is no such"):
        load_table("absent.csv")
