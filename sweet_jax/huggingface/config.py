"""Converts Hugging Face's config.json to our configs; refuses unknown attributes.

Every attribute of the file is one of three: read into the config, known to change the
mathematics (only values that we implement are accepted), or known to be harmless. Any
other attribute is an error, because ignoring it might compute another function.
"""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweet_jax.huggingface.families import FAMILIES, HARMLESS, Family
from sweet_jax.models.encoder import Encoder, EncoderConfig
from sweet_jax.models.post_norm import PostNormConfig
from sweet_jax.system import files

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
_REMEDY = "copy the encoder's folder again"
# Far above the largest encoders. A larger, wrong size would take minutes or all of the
# memory before the weights are found to contradict it.
_HIGHEST = {"num_hidden_layers": 1000, "num_attention_heads": 1000}
_HIGHEST_OTHER = 10_000_000


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the attributes of the folder's config.json.

    Raises:
        ValueError: there is no such file, it is not a JSON object, or the encoder is
            in a subfolder.
    """
    path = folder / CONFIG_FILE
    attributes = files.read_object(path, _REMEDY) if path.is_file() else None
    if attributes is not None and "model_type" in attributes:
        return attributes
    if encoder := _find_part(folder):
        raise ValueError(
            f"{folder} is a sentence-transformers model of the old layout: its encoder"
            f" lies in {encoder}: name that folder"
        )
    if attributes is None:
        raise ValueError(
            f"{folder} has no {CONFIG_FILE}: an encoder is a folder with {CONFIG_FILE},"
            " model.safetensors and tokenizer.json"
        )
    return attributes


def parse_config(
    attributes: Mapping[str, Any],
    ignore_attributes: tuple[str, ...] = (),
    source: str = CONFIG_FILE,
) -> EncoderConfig:
    """Returns our config for the attributes of a config.json.

    Args:
        attributes: the JSON object.
        ignore_attributes: names to ignore beside the known harmless ones.
        source: the file's name in errors.

    Raises:
        ValueError: see `load_config`.
    """
    family = _find_family(attributes, source)
    _check_sizes(family, attributes, source)
    if family.unify is not None:
        attributes = family.unify(attributes, source)
    known = {*family.fields, *family.mathematics, *family.implied, *family.unread}
    known.update(HARMLESS)
    known.update(ignore_attributes)
    if unknown := sorted(attributes.keys() - known):
        raise ValueError(
            f"{source}: unknown attribute {files.show_names(unknown)}: it may change"
            " what the encoder computes; if you know that it does not, add it to"
            " encoder.ignore_attributes"
        )
    # An absent attribute has its default value.
    stated = {**family.defaults, **attributes}
    for name, allowed in family.mathematics.items():
        # Fields that we read cannot be ignored.
        ignored = name in ignore_attributes and name not in family.fields
        if ignored or name not in stated:
            continue
        if stated[name] not in allowed:
            raise ValueError(
                f"{source}: {name}={files.show_value(stated[name])} is not implemented:"
                f" allowed {'is' if len(allowed) == 1 else 'are'}"
                f" {', '.join(map(repr, allowed))}"
            )
    # JSON null stands for "not set", as in Hugging Face's own files.
    given = {name: value for name, value in attributes.items() if value is not None}
    given = {**family.defaults, **given}
    if missing := [name for name in family.fields if name not in given]:
        raise ValueError(f"{source} lacks {', '.join(missing)}")
    fields = {
        field: _convert(name, given[name], field_type, source)
        for name, (field, field_type) in family.fields.items()
    }
    try:
        config = family.config_class(family=attributes["model_type"], **fields)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    for name, (field, field_type) in family.fields.items():
        lowest = 1 if field_type is int and field != "pad_token_id" else 0
        if name in family.lowest:
            lowest = family.lowest[name]
        value = getattr(config, field)
        if field_type in (int, float) and value < lowest:
            raise ValueError(f"{source}: {name}={value} must be at least {lowest}")
        # Dropout rates are below 1; no other number of an encoder is as large as 1e12.
        below = 1.0 if field.endswith("dropout") else 1e12
        if field_type is float and not value < below:
            raise ValueError(f"{source}: {name}={value} must be below {below:g}")
    for name, compute_implied in family.implied.items():
        implied = compute_implied(config)
        if name in given and name not in ignore_attributes and given[name] != implied:
            raise ValueError(
                f"{source}: {name}={files.show_value(given[name])} is not implemented:"
                f" allowed is {implied!r}, which follows from the other attributes"
            )
    if config.max_positions < 1:
        raise ValueError(
            f"{source}: max_position_embeddings leaves no position for a token: use a"
            " longer table"
        )
    if config.hidden_size % config.num_heads:
        raise ValueError(
            f"{source}: hidden_size={config.hidden_size} is not a multiple of"
            f" num_attention_heads={config.num_heads}"
        )
    return config


def load_config(folder: Path, ignore_attributes: tuple[str, ...] = ()) -> EncoderConfig:
    """Reads the config of a Hugging Face folder.

    Args:
        folder: a folder with a config.json.
        ignore_attributes: names to ignore beside the known harmless ones.

    Raises:
        ValueError: config.json cannot be read, its `model_type` or a value is not
            supported, or an attribute is unknown, missing or of a wrong type.
    """
    source = str(folder / CONFIG_FILE)
    attributes = read_config(folder)
    config = parse_config(attributes, ignore_attributes, source)
    if attributes.get("auto_map") is not None:
        logger.info(
            "%s names its own code (auto_map), which is never run: it is read as a"
            " standard %s",
            source,
            config.family,
        )
    return config


def read_classifier_dropout(folder: Path, config: PostNormConfig) -> float:
    """Returns the dropout rate before Hugging Face's classifier on an encoder.

    This is `cls_dropout` for a DeBERTa and `classifier_dropout` for other families; if
    absent or null, the encoder's own `hidden_dropout_prob`.

    Args:
        folder: the folder of the config.json.
        config: the config read from it.

    Raises:
        ValueError: the rate is not a number from 0 to below 1.
    """
    is_deberta = config.family.startswith("deberta")
    name = "cls_dropout" if is_deberta else "classifier_dropout"
    rate = read_config(folder).get(name)
    if rate is None:
        name, rate = "hidden_dropout_prob", config.hidden_dropout
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not number or not 0 <= rate < 1:
        raise ValueError(
            f"{folder / CONFIG_FILE}: {name}={rate!r} must be a number from 0 to below"
            " 1"
        )
    return float(rate)


def make_encoder(
    config: EncoderConfig, num_layers: int, dtype: Any, remat: bool = False
) -> Encoder:
    """Returns the config's encoder with its first `num_layers` layers.

    Raises:
        ValueError: the checkpoint has fewer layers.
    """
    if not 0 < num_layers <= config.num_layers:
        raise ValueError(
            f"num_layers={num_layers}: the encoder has {config.num_layers} layers"
        )
    encoder_class = FAMILIES[config.family].encoder_class
    return encoder_class(config=config, num_layers=num_layers, dtype=dtype, remat=remat)


def _find_family(attributes: Mapping[str, Any], source: str) -> Family:
    supported = f"supported are {', '.join(FAMILIES)}"
    if "model_type" not in attributes:
        raise ValueError(
            f'{source} has no model_type: add it, such as "model_type": "bert";'
            f" {supported}"
        )
    model_type = attributes["model_type"]
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ValueError(
            f"{source}: model_type {files.show_value(model_type)} is not supported:"
            f" {supported}; docs/adding-an-encoder.md says how to add one"
        )
    return FAMILIES[model_type]


def _convert(name: str, value: Any, field_type: type, source: str) -> Any:
    """Returns the value as the field's type; JSON may have 0 for the float 0.0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if field_type is float and number and abs(value) < 1e300:
        return float(value)
    # In Python a bool is an int.
    if isinstance(value, field_type) and isinstance(value, bool) == (
        field_type is bool
    ):
        return value
    raise ValueError(
        f"{source}: {name}={files.show_value(value)} is not of type"
        f" {field_type.__name__}"
    )


def _check_sizes(family: Family, attributes: Mapping[str, Any], source: str) -> None:
    """Raises ValueError for sizes that no encoder has, before they are used."""
    for name, (_, field_type) in family.fields.items():
        value, highest = attributes.get(name), _HIGHEST.get(name, _HIGHEST_OTHER)
        if field_type is int and type(value) is int and value > highest:
            raise ValueError(
                f"{source}: {name}={files.show_value(value)} must be at most {highest}"
            )


def _find_part(folder: Path) -> Path | None:
    """Returns the encoder's subfolder in an old sentence-transformers folder, or None.

    Its modules.json lists the parts; the first one is the transformer.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return None
    modules = files.read_json(path, _REMEDY)
    first = modules[0] if isinstance(modules, list) and modules else None
    name = first.get("path") if isinstance(first, dict) else None
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        return None
    return folder / name if (folder / name / CONFIG_FILE).is_file() else None
