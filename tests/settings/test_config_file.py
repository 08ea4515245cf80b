"""Config files: names and paths, overrides in every form, one line for the rest."""

import importlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweet_jax.settings import config_file
from sweet_jax.settings.config_file import find_config, list_configs, read_config
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.settings.registries import BUILTIN_METHODS
from sweet_jax.settings.rules import SettingsError

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


BROKEN = {
    "def get_config(:\n": r"own\.py, line 1: invalid syntax",
    "import no_such_package\n": r"own\.py, line 1: ModuleNotFoundError: No module",
    "x = 1\n": r"own\.py: AttributeError: .* no attribute 'get_config'",
    "def get_config(text=''):\n    return\n": "returned NoneType",
    "def get_config(text=''):\n    return name\n": "line 2: NameError: name 'name'",
    "def get_config(text=''):\n    return text.x\n": r"line 2: AttributeError: 'str'",
    "def get_config(text=''):\n    return 1 / 0\n": "line 2: ZeroDivisionError",
    "def get_config(text=''):\n    raise SystemExit(0)\n": "line 2: SystemExit: 0",
    "def get_config():\n    return {}\n": "takes 0 positional arguments but 1 was",
    "from sweet_jax.settings.config_file import make_config as make\n"
    "def get_config(text=''): return make('tsk=1')\n": "^config string part 'tsk=1'",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_config_file_that_fails_is_one_line_with_the_place(text, tmp_path):
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(SettingsError, match=BROKEN[text]):
        read_config([f"--config={tmp_path / 'own.py'}:seed=1"])


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.optim.learning_rate=1", r"did you mean optim\.\w+_learning_rate"),
        ("--config.sed=1", "unknown config key 'sed': did you mean seed"),
        ("--noconfig.encoder.remt", "'encoder.remt': did you mean encoder.remat"),
        (
            "--config.study.seeds=0",
            "needs a config with the section study: use --config=study",
        ),
        ("--config.exits.layers.x=0", "unknown config key 'exits.layers.x'"),
        ("--config.train.batch_size=many", "batch_size=many"),
        ("--config.seed", "Missing value for flag --config.seed"),
    ],
)
def test_a_field_that_cannot_be_set_is_one_line(flag, message):
    with pytest.raises(SettingsError, match=message) as error:
        read_config(["--config=sweet", flag])
    assert "\n" not in str(error.value)


def test_the_last_config_counts_and_leaves_nothing_behind(tmp_path):
    """A second file of the same process is read anew, not found in a cache."""
    own = tmp_path / "own.py"
    own.write_text("def get_config(): return {'method': 'early_exit'}")
    both = ["--config=sweet", f"--config={own}"]
    assert read_config(both).method == "early_exit"
    assert read_config([f"--config={own}", "--config=sweet"]).seed == 0
    other = tmp_path / "other.py"
    other.write_text("x = 1")
    with pytest.raises(SettingsError, match="no attribute 'get_config'"):
        read_config([f"--config={other}"])
