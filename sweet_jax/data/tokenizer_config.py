"""What tokenizer_config.json and the files beside it say, checked field by field.

Only what has a type here is read, and written again for transformers; other fields of a
folder are left out.
"""

import dataclasses
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Len, Lt

from sweet_jax.system import files

CONFIG_NAME = "tokenizer_config.json"
REMEDY = "copy the encoder's tokenizer again"
_NAMED_TOKENS = tuple(
    f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)

_Text = Annotated[str, Len(0, 1000)]


@dataclasses.dataclass(frozen=True)
class _AddedToken:
    """A token and how it matches; None: the library's default."""

    content: _Text
    single_word: bool | None = None
    lstrip: bool | None = None
    rstrip: bool | None = None
    normalized: bool | None = None
    special: bool | None = None


_Token = _Text | _AddedToken | None
_TokenList = Annotated[tuple[_Text | _AddedToken, ...], Len(0, 100_000)]


@dataclasses.dataclass(frozen=True)
class _SpecialTokens:
    """The fields that tokenizer_config.json and special_tokens_map.json share."""

    bos_token: _Token = None
    eos_token: _Token = None
    unk_token: _Token = None
    sep_token: _Token = None
    pad_token: _Token = None
    cls_token: _Token = None
    mask_token: _Token = None
    # Only lists are used; an object of names occurs in image and sound models.
    additional_special_tokens: _TokenList | dict[_Text, Any] | None = None
    extra_special_tokens: _TokenList | dict[_Text, Any] | None = None


@dataclasses.dataclass(frozen=True)
class TokenizerConfig(_SpecialTokens):
    """The fields of tokenizer_config.json that are read; None: not stated."""

    tokenizer_class: _Text | None = None
    auto_map: Any = None
    do_lower_case: bool | None = None
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool | None = None
    add_prefix_space: bool | None = None
    trim_offsets: bool | None = None
    split_by_punct: bool | None = None
    split_special_tokens: bool | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    unk_id: Annotated[int, Ge(0), Lt(1 << 31)] | None = None
    # Published files have 1e30 for "unknown".
    model_max_length: Annotated[int | float, Ge(1)] | None = None
    truncation_side: _Text | None = None
    model_input_names: Annotated[tuple[_Text, ...], Len(0, 20)] | None = None
    added_tokens_decoder: (
        Annotated[dict[_Text, _AddedToken], Len(0, 100_000)] | None
    ) = None


# We interpret these fields ourselves; they are not passed to transformers.
_NOT_PASSED = ("tokenizer_class", "auto_map", "additional_special_tokens")


def read_config(folder: Path) -> TokenizerConfig:
    """Returns the fields of tokenizer_config.json; without one, none is stated.

    Raises:
        FileError: it cannot be read, or a field is of another type.
    """
    if not os.path.lexists(folder / CONFIG_NAME):
        return TokenizerConfig()
    return files.read_as(folder / CONFIG_NAME, TokenizerConfig, remedy=REMEDY)


def dump_fields(config: _SpecialTokens) -> dict[str, Any]:
    """Returns the stated fields as transformers stores them."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is None or field.name in _NOT_PASSED:
            continue
        if field.name == "added_tokens_decoder":
            value = {id_: _dump_token(token) for id_, token in value.items()}
        elif isinstance(value, _AddedToken):
            value = {"__type": "AddedToken", **_dump_token(value)}
        elif field.name == "extra_special_tokens":
            continue
        fields[field.name] = value
    extra = [
        token
        if isinstance(token, str)
        else {"__type": "AddedToken", **_dump_token(token)}
        for tokens in (config.extra_special_tokens, config.additional_special_tokens)
        if isinstance(tokens, tuple)
        for token in tokens
    ]
    return {**fields, "extra_special_tokens": extra} if extra else fields


def _dump_token(token: _AddedToken) -> dict[str, Any]:
    stated = dataclasses.asdict(token)
    return {name: value for name, value in stated.items() if value is not None}


def copy_token_files(folder: Path, checked: Path) -> Collection[str]:
    """Copies the token files of older versions, checked; returns the added tokens.

    Args:
        folder: of the tokenizer.
        checked: where transformers reads.

    Raises:
        ValueError: a file is damaged, or holds more than it should.
    """
    path = folder / "special_tokens_map.json"
    if os.path.lexists(path):
        special = files.read_as(path, _SpecialTokens, remedy=REMEDY)
        fields = dump_fields(special)
        for name in _NAMED_TOKENS:
            if isinstance(fields.get(name), dict):
                del fields[name]["__type"]
        write_json(checked / path.name, fields)
    path = folder / "added_tokens.json"
    ids: dict[str, Any] = {}
    if os.path.lexists(path):
        ids = files.read_object(path, REMEDY)
        if not all(
            type(value) is int and 0 <= value < 1 << 31 for value in ids.values()
        ):
            raise ValueError(f"{path} has values that are not token ids: {REMEDY}")
        write_json(checked / path.name, ids)
    return ids


def write_json(path: Path, value: Any) -> None:
    """Writes a file that transformers reads."""
    path.write_text(json.dumps(value), encoding="utf-8")
