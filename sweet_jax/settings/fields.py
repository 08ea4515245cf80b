"""Settings of a run: frozen dataclasses with the defaults.

The dataclasses below are the reference of every field a person can set with
`--config.section.field=value`. The annotation of a field gives its allowed values
(rules.py). Checks of several fields together are in from_config.py. A field whose
default depends on the method, on `faithful_release` or on the encoder holds "not
given": `AUTO` (-1) in a number, `auto` in a text, () in a list. `resolve` fills it in
after all overrides, so that no given value is ever replaced by a default, not even one
that equals it.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from sweet_jax.settings.registries import ANALYSES, CRITERIA, METHODS, METRICS
from sweet_jax.settings.rules import (
    Even,
    Length,
    OneOf,
    Pattern,
    Range,
    Rising,
    SettingsError,
    find_types,
)

# "Not given", in a number.
AUTO = -1


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """The pretrained encoder."""

    # `minilm-l6` (embedded), a local folder, or a hub id such as bert-base-uncased.
    name: str = "minilm-l6"
    # Hub revision (branch, tag or commit); empty: the repository's default.
    revision: str = ""
    # Computation type, float32 or bfloat16. Parameters are always float32.
    dtype: Annotated[str, OneOf("float32", "bfloat16")] = "float32"
    # Recompute each layer's activations in the backward pass: less memory, more FLOPs.
    remat: bool = False
    # jax matmul precision: default, high or highest. On GPU default is TF32, on TPU
    # bfloat16.
    matmul_precision: Annotated[str, OneOf("default", "high", "highest")] = "default"
    # Attributes of the encoder's config.json to ignore beside the known harmless ones.
    ignore_attributes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ExitSettings:
    """The exits along the encoder."""

    # Layers, counted from 0, whose output an exit reads; (): by the encoder's depth.
    layers: Annotated[tuple[int, ...], Rising(), Range(0)] = ()
    # What the pooler reads: `mean` over real tokens, or `cls`, the first token's state;
    # auto: mean (faithful_release: cls).
    pooling: Annotated[str, OneOf("auto", "mean", "cls")] = "auto"
    # `fresh`, or `checkpoint`: every exit starts from the checkpoint's own pooler;
    # auto: fresh (faithful_release: checkpoint, where the encoder has a pooler).
    pooler_init: Annotated[str, OneOf("auto", "fresh", "checkpoint")] = "auto"
    # How pooler and classifier of each exit start: `random` (the pooler as pooler_init
    # says), or `probe`: both together compute a logistic regression of the pretrained
    # encoder's states, fitted on the training rows (docs/defaults.md); auto: probe
    # (random with pooler_init=checkpoint and under faithful_release).
    init: Annotated[str, OneOf("auto", "random", "probe")] = "auto"
    # Dropout before each classifier; -1: 0.1 (faithful_release: the encoder's own).
    dropout: Annotated[float, Range(0, 0.99)] = float(AUTO)
    # Learning to exit: train a head per exit to say whether the exit is right, for the
    # criterion lte.
    learn_to_exit: bool = False


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The task and its rows."""

    # rotten_tomatoes or imdb (embedded), a GLUE name, a hub data set, a local folder,
    # tfds/..., file; auto: file where data.train_file is given, else rotten_tomatoes.
    task: str = "auto"
    # Hub revision of the data set; empty: the default.
    revision: str = ""
    # Files of task=file: .jsonl, .csv or .tsv. The first alone is enough: test rows are
    # split off it, and calibration rows, too.
    train_file: str = ""
    validation_file: str = ""
    test_file: str = ""
    # Where no test rows are published or given: their share of all rows, in percent,
    # stratified by class, and the most of them.
    test_percent: Annotated[float, Range(1, 90)] = 20.0
    max_test_examples: Annotated[int, Range(1)] = 1530
    # One or two text columns; (): found by their usual names, or of two columns by what
    # is in them.
    text_columns: Annotated[tuple[str, ...], Length(0, 2, "one or two")] = ()
    # The column of labels, integers or strings; empty: found in the same way.
    label_column: str = ""
    # Accept rows whose text is empty instead of refusing them with their line number.
    allow_empty_text: bool = False
    # Training rows taken from the pool, stratified and nested over sizes; 0: all; -1:
    # 2,000 (faithful_release: 6,000; with data.shots: all that it draws).
    max_train_examples: Annotated[int, Range(0)] = AUTO
    # Few-shot: this many training rows of each class, drawn from the pool by the seed
    # and nested over numbers; 0: as max_train_examples says.
    shots: Annotated[int, Range(0)] = 0
    # What `score` means: accuracy, matthews, f1, macro_f1, balanced_accuracy, or a
    # metric that was registered; `auto`: the task's own (Matthews for cola, F1 for mrpc
    # and qqp, else accuracy).
    metric: Annotated[str, OneOf("auto", registry=METRICS)] = "auto"
    # Labelled rows held out for calibration, half for each part; 0: none, so that
    # temperatures are 1 and thresholds follow from cost, which needs no labels; -1:
    # 1,000, but 0 with data.shots, and where training rows are few (docs/few-shot.md),
    # unless train.select=best reads them.
    calibration_examples: Annotated[int, Range(0)] = AUTO
    # Longest input in tokens; longer ones are cut (and counted); -1: 128
    # (faithful_release: 256).
    max_length: Annotated[int, Range(3)] = AUTO
    # Lengths that batches are padded to; (): 16, 32, 48, 64, 96, 128, 192, 256, 384 and
    # 512 (faithful_release: 256).
    buckets: Annotated[tuple[int, ...], Rising(), Range(1)] = ()


@dataclasses.dataclass(frozen=True)
class OptimSettings:
    """AdamW, with learning rates of their own for the encoder and the exits."""

    # Peak learning rates; -1: 1e-4 and 1e-3 (faithful_release: 5e-5 for both).
    encoder_learning_rate: Annotated[float, Range(0, 1)] = float(AUTO)
    exit_learning_rate: Annotated[float, Range(0, 1)] = float(AUTO)
    # Peak learning rate of the encoder in train.contrastive_epochs.
    contrastive_learning_rate: Annotated[float, Range(0, 1)] = 2e-5
    # `linear` decay to 0, or `constant`; both after the warm-up.
    schedule: Annotated[str, OneOf("linear", "constant")] = "linear"
    # Share of the steps, in percent, over which the learning rates rise from 0; -1: 10
    # (faithful_release: 0).
    warmup_percent: Annotated[float, Range(0, 100)] = float(AUTO)
    # Decoupled weight decay; biases and norms are exempt; -1: 0.01 (faithful_release:
    # 0).
    weight_decay: Annotated[float, Range(0)] = float(AUTO)
    # Where AdamW adds its epsilon of 1e-8: `after_correction` of the moments' bias, as
    # torch and optax do, or `before_correction`, as transformers' own AdamW did up to
    # 4.21; auto: after_correction (faithful_release: before_correction).
    epsilon_mode: Annotated[
        str, OneOf("auto", "after_correction", "before_correction")
    ] = "auto"
    # Gradient norm limit; 0: none.
    clip_norm: Annotated[float, Range(0)] = 1.0
    # Whose norm is limited: `segment` (with its exit), `global`, `member`; `auto`: by
    # the method.
    clip_scope: Annotated[str, OneOf("auto", "segment", "global", "member")] = "auto"


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """The training loop."""

    # Rows per step.
    batch_size: Annotated[int, Range(1)] = 16
    # Passes over the training rows; -1: 3, or where rows are few as many as make 300
    # steps (faithful_release: 2).
    num_epochs: Annotated[int, Range(1)] = AUTO
    # Passes over the training rows before these, in which the encoder alone learns to
    # hold rows of a class together (SupCon), after which the exits start anew as
    # probes; -1: with 5 classes or more, as many as 3 epochs lack to 300 steps (0 with
    # num_epochs given, with exits.init=random, for registered methods and under
    # faithful_release).
    contrastive_epochs: Annotated[int, Range(0)] = AUTO
    # Steps between checkpoints; one more is written at the end.
    checkpoint_every_steps: Annotated[int, Range(1)] = 200
    # Parts a batch is cut into, one after the other, to save memory.
    accumulate_steps: Annotated[int, Range(1)] = 1
    # `last` step (as in the paper), or `best` epoch: the one with the highest mean of
    # data.metric over exits on calibration part 0. It needs labelled calibration rows.
    select: Annotated[str, OneOf("last", "best")] = "last"
    # Weights of the training rows in the loss: `none`, or `balanced`: rows / (classes *
    # rows of the class), as in scikit-learn, so that each class weighs the same.
    class_weights: Annotated[str, OneOf("none", "balanced")] = "none"


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """What is measured after training."""

    # Exit criteria to sweep, registered ones among them; (): confidence, entropy,
    # margin and patience, and lte where exits.learn_to_exit is set.
    criteria: Annotated[tuple[str, ...], OneOf(registry=CRITERIA)] = ()
    # Points of the threshold grid of confidence, entropy, margin and lte.
    num_thresholds: Annotated[int, Range(2, 10001)] = 11
    # Rows per evaluation batch; no result depends on it.
    batch_size: Annotated[int, Range(1)] = 64
    # Compile every segment by itself, for its FLOPs and its seconds on this device.
    measure_costs: bool = True
    # Fit and score baselines: tf-idf, and the frozen encoder at every exit, each with
    # logistic regression (docs/baselines.md).
    baselines: bool = True
    # Speed-ups to report the score at.
    speedups: Annotated[tuple[float, ...], Range(1)] = (1.5, 2.0, 3.0, 4.0)


@dataclasses.dataclass(frozen=True)
class AnalysisSettings:
    """What is measured while training goes on; no result of the run depends on it."""

    # Cosines between the gradients that different exits send to weights they share.
    gradient_conflict: bool = False
    # Other analyses, by the names under which they are registered.
    names: Annotated[tuple[str, ...], OneOf(registry=ANALYSES)] = ()
    # When, in percent of the training steps: 0 is before the first, 100 after the last.
    steps_percent: Annotated[
        tuple[float, ...], Length(1, None, "one or more"), Range(0, 100)
    ] = (
        0.0,
        25.0,
        50.0,
        75.0,
        100.0,
    )
    # Training batches that each measurement averages over.
    num_batches: Annotated[int, Range(1)] = 8

    @property
    def wanted(self) -> tuple[str, ...]:
        """The names of all analyses that are asked for."""
        own = ("gradient_conflict",) if self.gradient_conflict else ()
        return tuple(dict.fromkeys((*own, *self.names)))


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    # How the exits are trained: sweet, early_exit or multi_model (the paper's), or
    # two_stage, alternating, weighted, self_distill, gradient_equilibrium, or a method
    # that was registered. Also sweet(a=0.2), which sets one of the boundary_gradient
    # fields, as results show it.
    method: Annotated[str, OneOf(registry=METHODS)] = "sweet"
    # Chooses the training rows, their order, the fresh weights and dropout.
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    # Reproduce the released code of the paper, its defects included; what that means
    # and what still differs is in docs/released-code.md.
    faithful_release: bool = False
    # sweet only: share a of the gradient that crosses a seam, 0 <= a < 1; -1: as the
    # method says, which is 0 for `sweet`.
    boundary_gradient_scale: float = float(AUTO)
    # Or one share per seam, 0 <= a <= 1: sweet(a=0.2/0.5/0).
    boundary_gradient_scales: tuple[float, ...] = ()
    # Or one share for each equal part of the training: sweet(a=1>0) learns together
    # first, then separately.
    boundary_gradient_phases: tuple[float, ...] = ()
    encoder: EncoderSettings = EncoderSettings()
    exits: ExitSettings = ExitSettings()
    data: DataSettings = DataSettings()
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    analysis: AnalysisSettings = AnalysisSettings()

    @property
    def method_label(self) -> str:
        """The method as shown to people: `sweet(a=0.2)` where a is not 0.

        A number per seam is `sweet(a=0.2/0.5/0)`, a schedule `sweet(a=1>0)`. What it
        shows `seam_settings.parse_method` reads.
        """
        shown = {
            "/": self.boundary_gradient_scales,
            ">": self.boundary_gradient_phases,
            "": (max(self.boundary_gradient_scale, 0.0),),
        }
        for separator, scales in shown.items():
            if any(scales) or len(scales) > 1:
                numbers = (repr(a).removesuffix(".0") for a in scales)
                return f"{self.method}(a={separator.join(numbers)})"
        return self.method


@dataclasses.dataclass(frozen=True)
class StudySettings:
    """What a study compares: the section `study` of configs/study.py.

    An empty list means "as the other fields say": one task, one encoder, one size.
    """

    # Names the folder, and nothing else.
    name: str = "methods"
    # Labels of methods: sweet, sweet(a=0.2), early_exit, ...
    methods: tuple[str, ...] = ("multi_model", "early_exit", "sweet")
    # Tasks, as data.task.
    tasks: tuple[str, ...] = ()
    # One data.metric for each task, or none.
    metrics: tuple[str, ...] = ()
    # Encoders, as encoder.name.
    encoders: tuple[str, ...] = ()
    # Training sizes, as data.max_train_examples.
    train_sizes: tuple[int, ...] = ()
    # One run of every combination for each seed.
    seeds: tuple[int, ...] = (0, 1, 2)
    # Encoder learning rates to choose from, per method, on calibration part 0 of a run
    # with `learning_rates_seed`; empty: optim.encoder_learning_rate for all.
    encoder_learning_rates: tuple[float, ...] = ()
    # Exit learning rates to choose from in the same way; with both lists, every pair.
    exit_learning_rates: tuple[float, ...] = ()
    # The seed of those runs, which is not scored.
    learning_rates_seed: int = 100
    # i/n: run the i-th of n shares of the cells (from 0).
    shard: str = "0/1"


@dataclasses.dataclass(frozen=True)
class PapaSettings:
    """How much attention attends: the section `papa` of configs/papa.py.

    The encoder, the rows and `seed` are those of `Settings`. docs/papa.md says what the
    fields mean and how the defaults were chosen.
    """

    # Slots of every row, even: texts are cut to them, and shorter ones padded.
    length: Annotated[int, Range(8), Even()] = 64
    # Shares of all heads that stay dynamic: one point of the figure each.
    shares: Annotated[tuple[float, ...], Range(0, 1)] = (1.0, 0.5, 0.125, 0.0625, 0.0)
    # Or the numbers of constant heads; (): as `shares` say. 0 is always measured.
    constant_heads: Annotated[tuple[int, ...], Rising(), Range(0)] = ()
    # In which order heads become constant: trained `gates` (the paper's), `random`, the
    # `distance` of attention from its constant, its `entropy`, or by layers from the
    # `bottom` or the `top`. Each has a curve; the first one is used with all constants.
    rankings: Annotated[
        tuple[str, ...],
        Length(1, None, "one or more"),
        OneOf("gates", "random", "distance", "entropy", "bottom", "top"),
    ] = ("gates",)
    # By what attention is replaced: `averages` over the training rows (the paper's),
    # averages_N over N of them, `uniform`, `identity`, `by_distance`. Each has a curve;
    # the first one is used with all rankings.
    constants: Annotated[
        tuple[str, ...],
        Length(1, None, "one or more"),
        Pattern(
            "averages(_[1-9][0-9]{0,8})?|uniform|identity|by_distance",
            "averages, averages_N, uniform, identity and by_distance",
        ),
    ] = ("averages",)
    # Work directories of this analysis on other tasks with the same encoder, length and
    # layout, whose averages have a curve, too.
    constants_of: tuple[str, ...] = ()
    # Seeds of the probes: fresh weights, order of the rows, dropout.
    seeds: Annotated[
        tuple[int, ...],
        Length(1, None, "one or more"),
        Rising(),
        Range(0, 2**31 - 1),
    ] = (0, 1, 2)
    # Rows per step; -1: 32 (faithful_release: 16).
    batch_size: Annotated[int, Range(1)] = AUTO
    # Passes over the training rows for the probes, and for the gates; -1: 10 and
    # 2 (faithful_release: 15).
    num_epochs: Annotated[int, Range(1)] = AUTO
    ranking_epochs: Annotated[int, Range(1)] = AUTO
    # Constant learning rates of the probes, and of the gates; -1: 1e-4 and 1e-2
    # (faithful_release: 2e-5).
    learning_rate: Annotated[float, Range(0, 1)] = float(AUTO)
    gate_learning_rate: Annotated[float, Range(0, 1)] = float(AUTO)
    # Dropout before the classifier; -1: 0.1 (faithful_release: the encoder's own, and
    # none for RoBERTa).
    dropout: Annotated[float, Range(0, 0.99)] = float(AUTO)
    # `kept`: the frozen states of all training rows are computed once per point;
    # `streamed`: in every step; auto: kept (faithful_release: streamed, with dropout).
    states: Annotated[str, OneOf("auto", "kept", "streamed")] = "auto"
    # Points that are trained in one program; 0: all, where states are kept as many as
    # take 2 GB.
    points_at_once: Annotated[int, Range(0)] = 0
    # Rows per batch of passes without training; no result depends on it.
    rows_at_once: Annotated[int, Range(1)] = 32
    # Steps between two stored states of a training.
    checkpoint_every_steps: Annotated[int, Range(1)] = 200
    # Which rows are scored: `test`, or `calibration`: part 0, to choose settings on.
    score_on: Annotated[str, OneOf("test", "calibration")] = "test"
    # As the released code of the paper does, its defects included (docs/papa.md).
    faithful_release: bool = False


# Sections of configs that are not those of a run.
OTHER_SECTIONS: Mapping[str, type] = {"study": StudySettings, "papa": PapaSettings}


@functools.cache
def list_fields() -> dict[str, Any]:
    """Returns dotted field -> annotated type, of runs and of `OTHER_SECTIONS`."""
    fields = find_types(Settings)
    for section, kind in OTHER_SECTIONS.items():
        fields |= {f"{section}.{name}": t for name, t in find_types(kind).items()}
    return fields


def to_dict(settings: Settings) -> dict[str, Any]:
    """Returns nested plain dicts; tuples stay tuples."""
    return dataclasses.asdict(settings)


def flatten_settings(settings: Settings) -> dict[str, Any]:
    """Returns `{"optim.clip_norm": 1.0, ...}`."""
    flat: dict[str, Any] = {}
    for name, value in to_dict(settings).items():
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": v for key, v in value.items()})
        else:
            flat[name] = value
    return flat


def replace_fields(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Returns a copy with the dotted fields of `changes` replaced."""
    top: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        section, _, field = name.rpartition(".")
        if section:
            sections.setdefault(section, {})[field] = value
        else:
            top[name] = value
    for section, fields in sections.items():
        top[section] = dataclasses.replace(getattr(settings, section), **fields)
    return dataclasses.replace(settings, **top)


def compute_digest(fields: Mapping[str, Any]) -> str:
    """Returns 16 hex digits that change when any of the (flat) fields does."""
    text = json.dumps(dict(fields), sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def training_fields(settings: Settings) -> dict[str, Any]:
    """Returns the flat fields that training and its logit banks depend on."""
    harmless = {"train.checkpoint_every_steps"}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in flatten_settings(settings).items()
        if not name.startswith(("evaluate.", "analysis.")) and name not in harmless
    }


def evaluation_fields(settings: Settings) -> dict[str, Any]:
    """Returns the flat fields that evaluation depends on beside training's."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in flatten_settings(settings).items()
        # The batch size changes no result (a test holds it).
        if name.startswith("evaluate.") and name != "evaluate.batch_size"
    }


def default_exit_layers(num_layers: int) -> tuple[int, ...]:
    """Returns the exits of an encoder by its depth (the paper's, where it has one)."""
    known = {6: (0, 1, 3, 5), 12: (0, 3, 5, 11), 24: (0, 5, 11, 23)}
    if num_layers in known:
        return known[num_layers]
    ends = (-(-num_layers // part) - 1 for part in (12, 3, 2, 1))
    return tuple(sorted(set(ends)))


def check_exit_layers(layers: tuple[int, ...], num_layers: int) -> None:
    """Raises SettingsError unless all layers lie within the encoder."""
    if layers and layers[-1] >= num_layers:
        raise SettingsError(
            f"exits.layers={layers} goes past the encoder of {num_layers} layers:"
            f" allowed are rising, different layers from 0 to {num_layers - 1}"
        )
