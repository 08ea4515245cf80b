"""The table of tasks and the names that lead to it."""

import pytest

from sweet_jax.data.tasks import TASKS, get_task


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("cola", "matthews"),
        ("mrpc", "f1"),
        ("qqp", "f1"),
        ("mnli", "accuracy"),
        ("qnli", "accuracy"),
        ("rte", "accuracy"),
        ("sst2", "accuracy"),
        ("wnli", "accuracy"),
    ],
)
def test_glue_tasks_are_tested_on_their_validation_split(name, metric):
    task = get_task(name)
    assert (task.kind, task.hub_config, task.metric) == ("hub", name, metric)
    assert task.test_split == "validation"
    assert task.extra_test_splits == (
        ("validation_mismatched",) if name == "mnli" else ()
    )


@pytest.mark.parametrize("name", ["rotten_tomatoes", "imdb"])
def test_embedded_tasks_need_no_hub(name):
    task = get_task(name)
    assert (task.kind, task.hub_path, task.metric) == ("embedded", "", "accuracy")


def test_every_task_is_found_under_its_own_name():
    for name, task in TASKS.items():
        assert task.name == name
        assert get_task(name) is task


@pytest.mark.parametrize("name", ["stsb", "STS-B", "sts_b", "tfds/glue/stsb"])
def test_stsb_is_refused_with_the_reason(name):
    with pytest.raises(ValueError, match="regression"):
        get_task(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SST-2", "sst2"),
        ("MNLI", "mnli"),
        ("mnli_m", "mnli"),
        ("rotten_tomatos", "rotten_tomatoes"),
        ("rotten-tomatoes", "rotten_tomatoes"),
        ("files", "file"),
    ],
)
def test_a_near_miss_names_the_task_that_was_meant(name, meant):
    with pytest.raises(ValueError, match=f"did you mean {meant}\\?") as raised:
        get_task(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "path", "config"),
    [
        ("ag_news", "ag_news", ""),
        ("owner/sst2", "owner/sst2", ""),
        ("owner/name:plain_text", "owner/name", "plain_text"),
    ],
)
def test_other_names_are_hub_data_sets(name, path, config):
    task = get_task(name)
    assert (task.kind, task.hub_path, task.hub_config) == ("hub", path, config)
    assert task.metric == "accuracy"


def test_a_local_folder_is_taken_as_it_is(tmp_path):
    folder = tmp_path / "odd:name"
    folder.mkdir()
    task = get_task(str(folder))
    assert (task.kind, task.hub_path, task.hub_config) == ("folder", str(folder), "")


def test_tfds_names_keep_what_glue_defines():
    assert get_task("tfds/imdb_reviews").hub_path == "imdb_reviews"
    cola = get_task("tfds/glue/cola")
    assert (cola.kind, cola.hub_path, cola.metric) == ("tfds", "glue/cola", "matthews")
    assert cola.test_split == "validation"


@pytest.mark.parametrize("name", ["", "  ", "tfds/", "tfds/glue/nothing", "tfds/glue"])
def test_names_that_say_nothing_list_what_is_allowed(name):
    with pytest.raises(ValueError, match=r"allowed|add a name"):
        get_task(name)


@pytest.mark.parametrize(
    "name", ["absent.csv", "rows/Absent.JSONL", "./absent", "/absent", "../a/b", "~/x"]
)
def test_a_path_that_does_not_exist_is_no_hub_data_set(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there is no such file or folder") as error:
        get_task(name)
    assert str(error.value).startswith(f"data.task={name!r}")
