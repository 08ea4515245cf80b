"""The plan of a study: its cells, their settings, its shards."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.settings.fields import Settings, StudySettings, to_dict
from sweet_jax.settings.from_config import study_from_config_dict
from sweet_jax.settings.rules import SettingsError
from sweet_jax.study.plan import (
    LEARNING_RATES,
    SCORE,
    LearningRates,
    default_study_folder,
    make_plan,
    parse_shard,
)

METHODS = ("multi_model", "early_exit", "sweet", "sweet(a=0.2)")


def plan_of(base=None, **fields):
    return make_plan(base or to_dict(Settings()), StudySettings(**fields))


def test_every_combination_is_a_cell_seed_by_seed():
    plan = plan_of(methods=METHODS, seeds=(3, 4), train_sizes=(100, 200))
    assert len(plan.cells) == len({c.name for c in plan.cells}) == 4 * 2 * 2
    # An unfinished study has all methods on fewer seeds.
    assert [c.seed for c in plan.cells] == [3] * 8 + [4] * 8
    assert plan.cells[0].name == "rotten_tomatoes-minilm-l6-n100-multi_model-s3"


def test_cells_of_a_seed_differ_by_their_method_alone():
    plan = plan_of(methods=METHODS, seeds=(3,))
    made = [to_dict(plan.make_settings(cell, LearningRates())) for cell in plan.cells]
    assert [m["method"] for m in made] == ["multi_model", "early_exit", *["sweet"] * 2]
    assert [m["boundary_gradient_scale"] for m in made] == [0, 0, 0, 0.2]
    for one in made:
        del one["method"], one["boundary_gradient_scale"], one["optim"]["clip_scope"]
        assert one == made[0]
    assert made[0]["seed"] == 3


def test_methods_written_differently_are_one_method():
    with pytest.raises(SettingsError, match=r"two cells of the name .*sweet\(a=0.2\)"):
        plan_of(methods=("sweet(a=0.2)", "sweet(a=0.20)"))


def test_a_name_is_a_single_folder():
    plan = plan_of(methods=("sweet(a=0.2/0.5/0)", "sweet(a=1>0)"))
    assert not [cell.name for cell in plan.cells if "/" in cell.name]
    made = plan.make_settings(plan.cells[0], LearningRates())
    assert made.boundary_gradient_scales == (0.2, 0.5, 0.0)


def test_rates_are_tried_with_a_seed_of_their_own_before_the_scores():
    plan = plan_of(methods=("sweet", "early_exit"), encoder_learning_rates=(1e-4, 2e-4))
    assert [c.purpose for c in plan.cells] == [LEARNING_RATES] * 4 + [SCORE] * 6
    assert {c.seed for c in plan.cells[:4]} == {100}
    for cell in plan.cells[:4]:
        settings = plan.make_settings(cell, LearningRates(5e-5))
        assert settings.optim.encoder_learning_rate == cell.learning_rates.encoder
    assert plan.cells[0].name.endswith("-sweet-r0.0001-s100")
    chosen = plan.make_settings(plan.cells[4], LearningRates(2e-4))
    assert chosen.optim.encoder_learning_rate == 2e-4


def test_rates_of_encoder_and_exits_are_tried_in_pairs():
    one, both = (
        plan_of(
            methods=("sweet",), exit_learning_rates=(3e-4, 1e-3), seeds=(0,), **more
        )
        for more in ({}, {"encoder_learning_rates": (1e-4, 2e-4)})
    )
    assert [cell.learning_rates for cell in one.cells] == [
        LearningRates(None, 3e-4),
        LearningRates(None, 1e-3),
        None,
    ]
    assert one.cells[0].name.endswith("-sweet-e0.0003-s100")
    tried = [cell for cell in both.cells if cell.purpose == LEARNING_RATES]
    assert {cell.learning_rates for cell in tried} == {
        LearningRates(encoder, exits)
        for encoder in (1e-4, 2e-4)
        for exits in (3e-4, 1e-3)
    }
    assert tried[-1].name.endswith("-sweet-r0.0002-e0.001-s100")
    for cell in tried:
        optim = both.make_settings(cell, LearningRates()).optim
        found = (optim.encoder_learning_rate, optim.exit_learning_rate)
        assert found == cell.learning_rates
    optim = both.make_settings(both.cells[-1], LearningRates(2e-4, 3e-4)).optim
    assert (optim.encoder_learning_rate, optim.exit_learning_rate) == (2e-4, 3e-4)
    default = one.make_settings(one.cells[-1], LearningRates()).optim
    assert one.make_settings(
        one.cells[0], LearningRates()
    ).optim.encoder_learning_rate == (default.encoder_learning_rate)


@settings(max_examples=15)
@given(
    count=st.integers(1, 7),
    rates=st.sampled_from(
        [
            {},
            {"encoder_learning_rates": (1e-4, 2e-4)},
            {"exit_learning_rates": (3e-4, 1e-3)},
        ]
    ),
)
def test_shards_are_a_partition_and_rates_stay_with_their_scores(count, rates):
    plans = [
        plan_of(methods=METHODS, shard=f"{i}/{count}", **rates) for i in range(count)
    ]
    shards = [plan.select_shard() for plan in plans]
    names = [cell.name for shard in shards for cell in shard]
    assert sorted(names) == sorted(cell.name for cell in plans[0].cells)
    if rates:
        groups = [{cell.group for cell in shard} for shard in shards]
        assert sum(map(len, groups)) == len(METHODS)


def test_a_slow_method_meets_different_shards():
    plan = plan_of(methods=("multi_model", "sweet"), seeds=(0, 1), shard="0/2")
    assert {cell.group.method for cell in plan.select_shard()} == {
        "multi_model",
        "sweet",
    }


def test_tasks_bring_their_metrics():
    plan = plan_of(tasks=("a/cola", "a/rte"), metrics=("matthews", "auto"), seeds=(0,))
    by_task = {c.group.task: plan.make_settings(c, LearningRates()) for c in plan.cells}
    assert by_task["a/cola"].data.metric == "matthews"
    assert by_task["a/rte"].data.metric == "auto"
    assert plan.cells[0].name.startswith("cola-")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methods": ()}, "study.methods is empty"),
        ({"seeds": ()}, "study.seeds is empty"),
        ({"seeds": (1, 1)}, r"study.seeds=\(1, 1\) contains a value twice"),
        ({"methods": ("sweat",)}, "did you mean sweet"),
        ({"shard": "2/2"}, "allowed is i/n with 0 <= i < n"),
        ({"shard": "1"}, "allowed is i/n"),
        ({"tasks": ("a", "b"), "metrics": ("auto",)}, r"one for each of study.tasks"),
        ({"encoder_learning_rates": (1e-4,)}, "nothing to choose"),
        ({"exit_learning_rates": (1e-3,)}, "set optim.exit_learning_rate"),
        (
            {"exit_learning_rates": (1e-3, 1e-3)},
            r"study.exit_learning_rates=.* contains a value twice",
        ),
        ({"exit_learning_rates": (1e-3, 2.0)}, "optim.exit_learning_rate=2.0"),
        (
            {"exit_learning_rates": (1e-3, 2e-3), "learning_rates_seed": 1},
            "that is not scored",
        ),
        ({"encoder_learning_rates": (1e-4, 2.0)}, "optim.encoder_learning_rate=2.0"),
        (
            {"encoder_learning_rates": (1e-4, 2e-4), "learning_rates_seed": 1},
            "that is not scored",
        ),
        ({"tasks": ("a/x", "b/x")}, "two cells of the name"),
        ({"metrics": ("f1",)}, "one for each of study.tasks"),
        ({"tasks": ("a",), "metrics": ("f2",)}, "data.metric='f2': allowed are"),
        ({"seeds": (-1,)}, "seed=-1"),
        ({"tasks": ("a/caf\udce9",)}, r"not UTF-8: rename the folder"),
    ],
)
def test_wrong_fields_are_one_line(fields, message):
    with pytest.raises(SettingsError, match=message) as error:
        plan_of(**fields)
    assert "\n" not in str(error.value)


def test_a_base_that_contradicts_a_method_is_refused():
    base = to_dict(Settings())
    base["boundary_gradient_scale"] = 0.5
    with pytest.raises(SettingsError, match="boundary_gradient_scale"):
        plan_of(base)


def test_a_given_rate_is_not_replaced_by_a_search():
    """Also where it equals the default."""
    base = to_dict(Settings())
    base["optim"]["exit_learning_rate"] = 1e-3
    told = "exit_learning_rate=0.001 would not be used: study.exit_learning_rates"
    with pytest.raises(SettingsError, match=told):
        plan_of(base, exit_learning_rates=(3e-4, 1e-3))
    plan_of(base, encoder_learning_rates=(1e-4, 2e-4))


def test_names_of_cells_show_the_size_that_is_not_given():
    assert "-n2000-" in plan_of().cells[0].name
    base = to_dict(Settings()) | {"faithful_release": True}
    assert "-n6000-" in plan_of(base, methods=("sweet",)).cells[0].name


def test_config_splits_into_base_and_study():
    config = {**to_dict(Settings()), "study": {"seeds": [5], "train_sizes": 250}}
    base, study = study_from_config_dict(config)
    assert "study" not in base
    assert (study.seeds, study.train_sizes) == ((5,), (250,))
    with pytest.raises(SettingsError, match=r"unknown config key 'study.sead'"):
        study_from_config_dict({"study": {"sead": 1}})
    with pytest.raises(SettingsError, match=r"study.train_sizes\[0\]='x' is a str"):
        study_from_config_dict({"study": {"train_sizes": ("x",)}})


def test_folder_depends_on_what_cells_share_and_not_on_what_varies():
    folder = default_study_folder(plan_of())
    assert folder == default_study_folder(plan_of(methods=("sweet",), seeds=(7,)))
    base = to_dict(Settings())
    base["optim"]["clip_norm"] = 0.5
    assert folder != default_study_folder(plan_of(base))


def test_shards_parse():
    assert parse_shard("3/8") == (3, 8)


def test_rates_cannot_be_chosen_without_labels():
    base = {**to_dict(Settings()), "data": {"shots": 8}}
    assert plan_of(base).cells[0].name == "rotten_tomatoes-minilm-l6-multi_model-s0"
    with pytest.raises(SettingsError, match="learning rates on labelled calibration"):
        plan_of(base, encoder_learning_rates=(1e-4, 2e-4))
    base["data"] = {"shots": 8, "calibration_examples": 40}
    assert plan_of(base, encoder_learning_rates=(1e-4, 2e-4)).cells
