"""Settings of a run: frozen dataclasses with the defaults, and their checks.

The dataclasses below are the reference of every field a person can set with
`--config.section.field=value`. A value of `AUTO` (-1) in a number means "the method's
own default", resolved by `resolve` after all overrides.
"""

import dataclasses
import difflib
import hashlib
import itertools
import json
from collections.abc import Mapping
from typing import Any

METHODS = ("sweet", "early_exit", "multi_model")
CRITERIA = ("confidence", "entropy", "margin", "patience")
AUTO = -1


class SettingsError(ValueError):
    """A setting is wrong: one line with the value, what is allowed and what to do."""


@dataclasses.dataclass(frozen=True)
class EncoderSettings:
    """The pretrained encoder."""

    # `minilm-l6` (embedded), a local folder, or a hub id such as bert-base-uncased.
    name: str = "minilm-l6"
    # Hub revision (branch, tag or commit); empty: the repository's default.
    revision: str = ""
    # Computation type, float32 or bfloat16. Parameters are always float32.
    dtype: str = "float32"
    # Recompute each layer's activations in the backward pass: less memory, more FLOPs.
    remat: bool = False
    # jax matmul precision: default, high or highest. On GPU default is TF32, on TPU
    # bfloat16.
    matmul_precision: str = "default"
    # Attributes of the encoder's config.json to ignore beside the known harmless ones.
    ignore_attributes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ExitSettings:
    """The exits along the encoder."""

    # Layers, counted from 0, whose output an exit reads; (): by the encoder's depth.
    layers: tuple[int, ...] = ()
    # What the pooler reads: `mean` over real tokens, or `cls`, the first token's state.
    pooling: str = "mean"
    # `fresh`, or `checkpoint`: every exit starts from the checkpoint's own pooler.
    pooler_init: str = "fresh"
    # Dropout before each classifier.
    dropout: float = 0.1


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The task and its rows."""

    # rotten_tomatoes or imdb (embedded), a GLUE name, a hub data set, tfds/..., file.
    task: str = "rotten_tomatoes"
    # Hub revision of the data set; empty: the default.
    revision: str = ""
    # Files of task=file: .jsonl, .csv or .tsv.
    train_file: str = ""
    validation_file: str = ""
    test_file: str = ""
    # One or two text columns; (): found by their usual names.
    text_columns: tuple[str, ...] = ()
    # The column of labels, integers or strings.
    label_column: str = "label"
    # Accept rows whose text is empty instead of refusing them with their line number.
    allow_empty_text: bool = False
    # Training rows taken from the pool, stratified and nested over sizes; 0: all.
    max_train_examples: int = 2000
    # Rows held out for calibration, half for each part.
    calibration_examples: int = 1000
    # Longest input in tokens; longer ones are cut (and counted).
    max_length: int = 128
    # Lengths that batches are padded to.
    buckets: tuple[int, ...] = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclasses.dataclass(frozen=True)
class OptimSettings:
    """AdamW, with learning rates of their own for the encoder and the exits."""

    # Peak learning rates; -1: the method's default (docs/defaults.md).
    encoder_learning_rate: float = float(AUTO)
    exit_learning_rate: float = float(AUTO)
    # `linear` decay to 0, or `constant`; both after the warm-up.
    schedule: str = "linear"
    # Share of the steps, in percent, over which the rate rises from 0.
    warmup_percent: float = 10.0
    # Decoupled weight decay; biases and norms are exempt.
    weight_decay: float = 0.01
    # Gradient norm limit; 0: none.
    clip_norm: float = 1.0
    # Whose norm is limited: `segment` (with its exit), `global`, `member`; `auto`: by
    # the method.
    clip_scope: str = "auto"


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """The training loop."""

    # Rows per step.
    batch_size: int = 16
    # Passes over the training rows; -1: the method's default.
    num_epochs: int = AUTO
    # Steps between checkpoints; one more is written at the end.
    checkpoint_every_steps: int = 200
    # Parts a batch is cut into, one after the other, to save memory.
    accumulate_steps: int = 1
    # `last` step (as in the paper), or `best` epoch by the mean exit score on
    # calibration part 0.
    select: str = "last"


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """What is measured after training."""

    # Exit criteria to sweep.
    criteria: tuple[str, ...] = CRITERIA
    # Points of the threshold grid of confidence, entropy and margin.
    num_thresholds: int = 11
    # Rows per evaluation batch; no result depends on it.
    batch_size: int = 64
    # Speed-ups to report the score at.
    speedups: tuple[float, ...] = (1.5, 2.0, 3.0, 4.0)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of a run."""

    # How the exits are trained: sweet, early_exit or multi_model.
    method: str = "sweet"
    # Chooses the training rows, their order, the fresh weights and dropout.
    seed: int = 0
    # Reproduce the released code of the paper, its departures included.
    faithful_release: bool = False
    # sweet only: share a of the gradient that crosses a seam, 0 <= a < 1.
    boundary_gradient_scale: float = 0.0
    encoder: EncoderSettings = EncoderSettings()
    exits: ExitSettings = ExitSettings()
    data: DataSettings = DataSettings()
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @property
    def method_label(self) -> str:
        """The method as shown to people: `sweet(a=0.2)` where a is not 0."""
        a = self.boundary_gradient_scale
        return f"{self.method}(a={a:g})" if a else self.method


# What `AUTO` and `auto` stand for, by method. How the numbers were found:
# docs/defaults.md.
METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    "sweet": {
        "optim.encoder_learning_rate": 1e-4,
        "optim.exit_learning_rate": 1e-3,
        "optim.clip_scope": "segment",
        "train.num_epochs": 3,
    },
    "early_exit": {
        "optim.encoder_learning_rate": 1e-4,
        "optim.exit_learning_rate": 1e-3,
        "optim.clip_scope": "global",
        "train.num_epochs": 3,
    },
    "multi_model": {
        "optim.encoder_learning_rate": 1e-4,
        "optim.exit_learning_rate": 1e-3,
        "optim.clip_scope": "member",
        "train.num_epochs": 3,
    },
}

# The released code's own choices (FACTS of the code at a2d8a30; README command).
FAITHFUL_RELEASE: dict[str, Any] = {
    "exits.pooling": "cls",
    "exits.pooler_init": "checkpoint",
    "optim.encoder_learning_rate": 5e-5,
    "optim.exit_learning_rate": 5e-5,
    "optim.schedule": "linear",
    "optim.warmup_percent": 0.0,
    "optim.weight_decay": 0.0,
    "optim.clip_norm": 1.0,
    "optim.clip_scope": "global",
    "data.max_train_examples": 6000,
    "data.max_length": 256,
    "data.buckets": (256,),
    "train.batch_size": 16,
    "train.num_epochs": 2,
    "train.select": "last",
    "boundary_gradient_scale": 0.0,
}

_CHOICES = {
    "method": METHODS,
    "encoder.dtype": ("float32", "bfloat16"),
    "encoder.matmul_precision": ("default", "high", "highest"),
    "exits.pooling": ("mean", "cls"),
    "exits.pooler_init": ("fresh", "checkpoint"),
    "optim.schedule": ("linear", "constant"),
    "optim.clip_scope": ("auto", "segment", "global", "member"),
    "train.select": ("last", "best"),
}

# field -> (lowest, highest) with None for no bound; AUTO is always allowed where the
# default is AUTO.
_RANGES: dict[str, tuple[float | None, float | None]] = {
    "seed": (0, 2**31 - 1),
    "exits.dropout": (0, 0.99),
    "data.max_train_examples": (0, None),
    "data.calibration_examples": (4, None),
    "data.max_length": (3, None),
    "optim.encoder_learning_rate": (0, 1),
    "optim.exit_learning_rate": (0, 1),
    "optim.warmup_percent": (0, 100),
    "optim.weight_decay": (0, None),
    "optim.clip_norm": (0, None),
    "train.batch_size": (1, None),
    "train.num_epochs": (1, None),
    "train.checkpoint_every_steps": (1, None),
    "train.accumulate_steps": (1, None),
    "evaluate.num_thresholds": (2, 10001),
    "evaluate.batch_size": (1, None),
}


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


def from_config_dict(config: Any) -> Settings:
    """Makes settings from a nested mapping, checked and with AUTO resolved.

    Args:
        config: a ConfigDict or a dict; fields that are absent take their defaults.

    Raises:
        SettingsError: an unknown key, a value of the wrong type or out of range, or
            fields that contradict each other.
    """
    defaults = flatten_settings(Settings())
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) or hasattr(value, "items"):
            if name not in {key.split(".")[0] for key in defaults if "." in key}:
                raise _unknown_key(name, defaults)
            flat.update({f"{name}.{key}": v for key, v in value.items()})
        else:
            flat[name] = value
    changes = {}
    for name, value in flat.items():
        if name not in defaults:
            raise _unknown_key(name, defaults)
        changes[name] = _convert(name, value, defaults[name])
    settings = resolve(replace_fields(Settings(), changes))
    _check(settings)
    return settings


def resolve(settings: Settings) -> Settings:
    """Returns settings whose AUTO fields hold their method's or release's values.

    Raises:
        SettingsError: the method is unknown, or a field contradicts faithful_release.
    """
    _check_choice("method", settings.method, METHODS)
    flat, defaults = flatten_settings(settings), flatten_settings(Settings())
    changes = {
        name: value
        for name, value in METHOD_DEFAULTS[settings.method].items()
        if flat[name] in (AUTO, "auto")
    }
    if settings.faithful_release:
        release = dict(FAITHFUL_RELEASE)
        if settings.method == "multi_model":
            release["optim.clip_scope"] = "member"
        for name, value in release.items():
            if flat[name] not in (defaults[name], value):
                raise SettingsError(
                    f"{name}={flat[name]} contradicts faithful_release=True, which"
                    f" means {name}={value}: drop one of the two"
                )
        changes.update(release)
    return replace_fields(settings, changes)


def parse_config_string(text: str) -> dict[str, Any]:
    """Parses the part of `--config=file.py:key=value,...` after the colon.

    Returns:
        Dotted field names to values, from the keys task, encoder, method and seed.

    Raises:
        SettingsError: a part is not key=value, or the key is another one.
    """
    names = {
        "task": "data.task",
        "encoder": "encoder.name",
        "method": "method",
        "seed": "seed",
    }
    fields: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, separator, value = part.partition("=")
        if not separator or key not in names:
            raise SettingsError(
                f"config string part {part!r}: allowed are key=value with the keys"
                f" {', '.join(names)}; other fields go as --config.section.field=value"
            )
        if key == "seed" and not value.isdecimal():
            raise SettingsError(f"seed={value!r} must be a whole number of 0 or more")
        fields[names[key]] = int(value) if key == "seed" else value
    return fields


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
        if not name.startswith("evaluate.") and name not in harmless
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


def check_exit_layers(layers: tuple[int, ...], num_layers: int | None = None) -> None:
    """Raises SettingsError unless the layers rise and lie within the encoder."""
    limit = "the encoder's last layer" if num_layers is None else f"{num_layers - 1}"
    allowed = f"allowed are rising, different layers from 0 to {limit}"
    if any(b <= a for a, b in itertools.pairwise(layers)):
        raise SettingsError(f"exits.layers={layers} are not rising: {allowed}")
    if any(layer < 0 for layer in layers):
        raise SettingsError(f"exits.layers={layers} has a negative layer: {allowed}")
    if num_layers is not None and layers and layers[-1] >= num_layers:
        raise SettingsError(
            f"exits.layers={layers} goes past the encoder of {num_layers} layers:"
            f" {allowed}"
        )


def _unknown_key(name: str, defaults: Mapping[str, Any]) -> SettingsError:
    close = difflib.get_close_matches(name, defaults, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(close)}?" if close else "see sweet_jax/settings.py"
    )
    return SettingsError(f"unknown config key {name!r}: {hint}")


def _convert(name: str, value: Any, default: Any) -> Any:
    """Returns the value in the default's type, or raises SettingsError."""
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
    elif isinstance(default, tuple):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            value = (value,)
        if isinstance(value, tuple | list):
            item_type = _item_type(name, default)
            return tuple(
                _convert(f"{name}[{i}]", v, item_type()) for i, v in enumerate(value)
            )
    elif isinstance(default, str):
        if isinstance(value, str):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(default, float):
            return float(value)
        if value == int(value):
            return int(value)
    expected = "a list" if isinstance(default, tuple) else type(default).__name__
    raise SettingsError(
        f"{name}={value!r} is a {type(value).__name__}, expected {expected}"
    )


def _item_type(name: str, default: tuple[Any, ...]) -> type:
    if default:
        return type(default[0])
    return int if name == "exits.layers" else str


def _check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        close = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise SettingsError(f"{name}={value!r}: allowed are {', '.join(allowed)}{hint}")


def _check(settings: Settings) -> None:
    """Raises SettingsError where a field is out of range or contradicts another."""
    flat = flatten_settings(settings)
    for name, allowed in _CHOICES.items():
        _check_choice(name, flat[name], allowed)
    for name, (low, high) in _RANGES.items():
        value = flat[name]
        if (low is not None and value < low) or (high is not None and value > high):
            bound = f"at least {low}" if high is None else f"from {low} to {high}"
            raise SettingsError(f"{name}={value}: allowed is {bound}")
    a = settings.boundary_gradient_scale
    if not 0 <= a < 1:
        raise SettingsError(
            f"boundary_gradient_scale={a}: allowed is 0 <= a < 1 (1 is early_exit)"
        )
    if a and settings.method != "sweet":
        raise SettingsError(
            f"boundary_gradient_scale={a} belongs to method=sweet, not to"
            f" {settings.method}: drop it or set method=sweet"
        )
    scopes = {
        "sweet": ("segment", "global"),
        "early_exit": ("global",),
        "multi_model": ("member",),
    }[settings.method]
    _check_choice(
        f"optim.clip_scope of method={settings.method}",
        settings.optim.clip_scope,
        scopes,
    )
    check_exit_layers(settings.exits.layers)
    for criterion in settings.evaluate.criteria:
        _check_choice("evaluate.criteria", criterion, CRITERIA)
    if not settings.evaluate.criteria:
        raise SettingsError(f"evaluate.criteria is empty: allowed are {CRITERIA}")
    if any(s < 1 for s in settings.evaluate.speedups):
        raise SettingsError(
            f"evaluate.speedups={settings.evaluate.speedups}: allowed is 1 or more"
        )
    if settings.train.batch_size % settings.train.accumulate_steps:
        raise SettingsError(
            f"train.accumulate_steps={settings.train.accumulate_steps} must divide"
            f" train.batch_size={settings.train.batch_size}"
        )
    buckets = settings.data.buckets
    if not buckets or any(b <= a for a, b in itertools.pairwise(buckets)):
        raise SettingsError(f"data.buckets={buckets}: allowed are rising lengths")
    if len(settings.data.text_columns) > 2:
        raise SettingsError(
            f"data.text_columns={settings.data.text_columns}: allowed are one or two"
        )
