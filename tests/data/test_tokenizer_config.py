"""What is read of a tokenizer's config, and what transformers gets of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from sweet_jax.data.tokenizer_config import (
    TokenizerConfig,
    copy_token_files,
    dump_fields,
    read_config,
)


def read(folder: Path, **fields: Any) -> TokenizerConfig:
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
    return read_config(folder)


def test_without_a_file_nothing_is_stated(tmp_path: Path) -> None:
    assert dump_fields(read_config(tmp_path)) == {}


def test_known_fields_pass_and_others_are_left_out(tmp_path: Path) -> None:
    stated = {"do_lower_case": True, "unk_id": 3, "model_max_length": 512}
    others = {"tokenizer_class": "X", "auto_map": {"a": "b"}, "tokenizer_file": "/etc"}
    assert dump_fields(read(tmp_path, **stated, **others)) == stated


def test_tokens_keep_their_ways_of_matching(tmp_path: Path) -> None:
    mask = {"content": "<mask>", "lstrip": True}
    config = read(
        tmp_path,
        mask_token=mask,
        pad_token="<pad>",
        additional_special_tokens=["<a>", mask],
        added_tokens_decoder={"4": mask},
    )
    added = {"__type": "AddedToken", **mask}
    assert dump_fields(config) == {
        "mask_token": added,
        "pad_token": "<pad>",
        "added_tokens_decoder": {"4": mask},
        "extra_special_tokens": ["<a>", added],
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"do_lower_case": "yes"},
        {"unk_id": -1},
        {"pad_token": 3},
        {"model_max_length": 0},
    ],
    ids=str,
)
def test_a_field_of_another_type_is_one_line(tmp_path: Path, fields: Any) -> None:
    message = f"is damaged .{next(iter(fields))}.*copy the encoder's tokenizer again"
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, **fields)
    assert "\n" not in str(error.value)


def test_files_of_added_tokens_are_copied_as_checked(tmp_path: Path) -> None:
    folder, checked = tmp_path / "folder", tmp_path / "checked"
    folder.mkdir()
    checked.mkdir()
    assert not copy_token_files(folder, checked)
    assert not list(checked.iterdir())
    special = {"cls_token": {"content": "<s>", "special": True}, "auto_map": "x"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    (folder / "added_tokens.json").write_text('{"<s>": 7}')
    assert [*copy_token_files(folder, checked)] == ["<s>"]
    del special["auto_map"]
    found = {file.name: json.loads(file.read_text()) for file in checked.iterdir()}
    assert found == {
        "special_tokens_map.json": special,
        "added_tokens.json": {"<s>": 7},
    }
    (folder / "added_tokens.json").write_text('{"<s>": true}')
    with pytest.raises(ValueError, match="has values that are not token ids"):
        copy_token_files(folder, checked)
