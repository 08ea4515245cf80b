"""Config files: names and paths, overrides in every form, one line for the rest."""

import importlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.settings import config_file
from sweet_jax.settings.config_file import find_config, list_configs, read_config
from sweet_jax.settings.fields import BUILTIN_METHODS, SettingsError
from sweet_jax.settings.resolve import from_config_dict

LISTS = {
    "title,body": ("title", "body"),
    "title, body": ("title", "body"),
    "(title,body)": ("title", "body"),
    "('title', 'body')": ("title", "body"),
    '["title", "body"]': ("title", "body"),
    "title": ("title",),
    "'last, first'": ("last, first",),
    '"last, first",title': ("last, first", "title"),
    "'last, first',title": ("last, first", "title"),
    "it's,fine": ("it's", "fine"),
    "sweet(a=0.2),early_exit": ("sweet(a=0.2)", "early_exit"),
    "007,1": ("007", "1"),
    "": (),
    "()": (),
}


@pytest.mark.parametrize("text", LISTS)
def test_names_with_commas_are_lists(text):
    flag = "--config.data.text_columns"
    expected = [f"{flag}={LISTS[text]!r}", "--dry_run"]
    assert config_file.quote_names([f"{flag}={text}", "--dry_run"]) == expected
    assert config_file.quote_names([flag, text, "--dry_run"]) == expected


def test_a_list_may_come_in_several_flags_and_other_fields_are_left_alone():
    flag = "--config.study.methods"
    others = ["--config.exits.layers=0,1", "--config.data.task=a,b", "--x", "a,b"]
    assert config_file.quote_names([f"{flag}=a", *others, f"{flag}=b,c"]) == [
        f"{flag}=('a', 'b', 'c')",
        *others,
    ]
    assert config_file.quote_names(["--", f"{flag}=a,b"]) == ["--", f"{flag}=a,b"]


@given(st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]))))
def test_quoted_lists_keep_every_name(names):
    (argument,) = config_file.quote_names([f"--config.study.tasks={tuple(names)!r}"])
    assert argument == f"--config.study.tasks={tuple(names)!r}"


@pytest.mark.parametrize("rest", ["", ":seed=1", ":method=sweet(a=1>0),seed=1"])
def test_a_config_has_a_name_or_a_path(tmp_path, monkeypatch, rest):
    own = tmp_path / "sweet.py"
    own.write_text(Path("configs/early_exit.py").read_text())
    assert find_config(f"{own}{rest}") == f"{own}{rest}"
    # From any directory, and whatever lies there.
    monkeypatch.chdir(tmp_path)
    found = find_config(f"sweet{rest}")
    assert found.endswith(f"sweet_jax/configs/sweet.py{rest}")
    assert from_config_dict(read_config([f"--config={found}"])).method == "sweet"
    assert find_config(f"sweet.py{rest}") == f"sweet.py{rest}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sweat", r"--config='sweat': allowed are .*did you mean sweet\?, or the path"),
        ("configs/absent.py", r"--config=configs/absent\.py: there is no such file"),
        ("absent.py:seed=1", r"--config=absent\.py: there is no such file"),
        ("", r"--config='': allowed are early_exit, multi_model"),
    ],
)
def test_another_config_is_one_line(text, message):
    with pytest.raises(SettingsError, match=message):
        find_config(text)


def test_a_config_and_its_fields_come_in_any_form():
    forms = (
        ["--config=sweet", "--config.seed=3", "--config.train.batch_size=8"],
        ["--config", "sweet", "--config.seed", "3", "--config.train.batch_size", "8"],
        [
            "--config.seed=3",
            "--config=sweet:method=sweet",
            "--config.train.batch_size=8",
        ],
    )
    found = [from_config_dict(read_config(form)) for form in forms]
    assert found[0].seed == 3
    assert found[0].train.batch_size == 8
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", ["sweet", "study"])
def test_every_packaged_config_is_listed(name):
    assert name in list_configs()
    assert all((Path("configs") / f"{name}.py").is_file() for name in list_configs())


@pytest.mark.parametrize("name", ["sweet", "early_exit", "multi_model", "paper"])
def test_every_config_file_makes_settings(name):
    module = importlib.import_module(f"sweet_jax.configs.{name}")
    settings = from_config_dict(module.get_config())
    assert settings.method == (name if name in BUILTIN_METHODS else "sweet")
    changed = from_config_dict(module.get_config("method=multi_model,seed=4"))
    assert (changed.method, changed.seed) == ("multi_model", 4)
    faithful = module.get_config()
    faithful.faithful_release = True
    assert from_config_dict(faithful).data.max_length == 256
    # As flags set it: no file gives the default of a field.
    faithful.exits.pooling = "mean"
    with pytest.raises(SettingsError, match=r"exits\.pooling=mean contradicts"):
        from_config_dict(faithful)
