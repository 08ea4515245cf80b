"""A tokenizer's folder is data: nothing of it is run, asked for, or believed."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import tokenizers
import transformers
from tokenizers import models, pre_tokenizers

from sweet_jax.data.tokenize import check_vocabulary, load_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["good", "bad", "film", "plot", "warm", "cold", "scene", "music", "actor", "it"]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
UNCASED = [*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
CASED = [*UNCASED, *(word.title() for word in WORDS), *map(str.upper, LETTERS)]


@pytest.fixture
def folder(tmp_path):
    """A BERT's folder as the hub has them: vocabulary and configs."""
    write(tmp_path / "vocab.txt", "\n".join(UNCASED) + "\n")
    write(tmp_path / "config.json", {"model_type": "bert"})
    write(tmp_path / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    return tmp_path


def write(path: Path, content: object) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")


def change(path: Path, **fields: object) -> None:
    write(path, {**json.loads(path.read_text()), **fields})


def encode(folder: Path, text: str) -> list[str]:
    return load_tokenizer(folder, 64).backend_tokenizer.encode(text).tokens


def refuse(folder: Path, match: str) -> str:
    """The folder is refused in one short line, at once; returns the line."""
    start = time.monotonic()
    with pytest.raises(ValueError, match=match) as error:
        load_tokenizer(folder, 64)
    assert time.monotonic() - start < 5
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 1000
    return line


# Code.


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json"])
@pytest.mark.parametrize(
    "auto_map",
    [
        {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]},
        {"AutoTokenizer": [None, "someone/else--evil.Tokenizer"]},
        {"AutoTokenizer": "evil.Tokenizer"},
    ],
)
def test_a_tokenizer_that_is_code_is_refused_by_name(
    folder, monkeypatch, capfd, file, auto_map
):
    """Asked "run it? [y/N]" on standard input, the rows to predict would answer."""
    marker = folder / "executed"
    write(folder / "evil.py", f"open({str(marker)!r}, 'w')\nclass Tokenizer: pass\n")
    monkeypatch.setattr(sys, "stdin", None)  # Reading it would be an error.
    change(folder / file, auto_map=auto_map, tokenizer_class="Evil\x1b[31m")
    line = refuse(folder, r"asks for code of its own .*evil\.Tokenizer.*never run")
    assert "\x1b" not in line
    assert not marker.exists()
    assert capfd.readouterr().out == ""


def test_the_advice_for_code_leads_out(folder):
    backend = tokenizers.Tokenizer(
        models.WordLevel({t: i for i, t in enumerate(UNCASED)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    backend.save(str(folder / "tokenizer.json"))
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["x.T", None]})
    line = refuse(folder, "remove auto_map from tokenizer_config.json")
    assert "set tokenizer_class to PreTrainedTokenizerFast" in line
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    write(folder / "tokenizer_config.json", {**special, "pad_token": "[PAD]"})
    assert encode(folder, "good film") == ["good", "film"]


def test_what_is_never_run_does_not_matter(folder):
    """Code of model classes, a template, files that lie about."""
    write(folder / "modeling_x.py", "raise SystemExit('executed')")
    change(folder / "config.json", auto_map={"AutoModel": "modeling_x.Model"})
    change(
        folder / "tokenizer_config.json",
        auto_map={"AutoProcessor": "x.P"},
        chat_template="{{ undefined.method() }}",
        processor_class="XProcessor",
        _commit_hash="0" * 40,
    )
    assert encode(folder, "good film") == ["[CLS]", "good", "film", "[SEP]"]


@pytest.mark.parametrize(
    "field",
    [
        "tokenizer_file",
        "vocab_file",
        "merges_file",
        "gguf_file",
        "tokenizer_object",
        "vocab",
        "merges",
        "fast_tokenizer_files",
        "name_or_path",
        "init_inputs",
        "trust_remote_code",
        "__class__",
    ],
)
def test_no_field_is_handed_to_a_constructor(folder, field):
    elsewhere = folder / "elsewhere.json"
    write(elsewhere, "this file is not the tokenizer's")
    plain = encode(folder, "good film")
    change(folder / "tokenizer_config.json", **{field: str(elsewhere)})
    assert encode(folder, "good film") == plain


def test_transformers_is_never_asked_to_trust(folder, monkeypatch):
    given = {}
    real = transformers.BertTokenizer.from_pretrained.__func__

    def record(cls, path, **options):
        given.update(options, files={file.name for file in Path(path).iterdir()})
        return real(cls, path, **options)

    monkeypatch.setattr(
        transformers.BertTokenizer, "from_pretrained", classmethod(record)
    )
    write(folder / "evil.py", "raise SystemExit('executed')")
    load_tokenizer(folder, 64)
    assert given["trust_remote_code"] is False
    assert given["local_files_only"] is True
    assert given["files"] == {"vocab.txt", "tokenizer_config.json"}


# Hostile and odd files.

ODD = [True, -1, 2**40, 10**400, 1.5, "\x1b[31m", [], {"a": 1}, [[[]]]]


@pytest.mark.parametrize("value", ODD, ids=lambda value: str(value)[:9])
@pytest.mark.parametrize(
    "field",
    [
        "tokenizer_class",
        "auto_map",
        "do_lower_case",
        "model_max_length",
        "cls_token",
        "unk_token",
        "pad_token",
        "added_tokens_decoder",
        "additional_special_tokens",
        "truncation_side",
        "model_input_names",
        "unk_id",
        "split_special_tokens",
    ],
)
def test_odd_values_load_or_are_one_line(folder, field, value):
    change(folder / "tokenizer_config.json", **{field: value})
    try:
        load_tokenizer(folder, 64)
    except ValueError:
        assert "\x1b" not in refuse(folder, r"tokenizer")


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"model_max_length": ' + "9" * 5000 + "}",
        '{"a": NaN}',
        "",
        "[]",
        "\ufeff{}",
    ],
    ids=["deep", "deep objects", "digits", "NaN", "empty", "list", "BOM"],
)
@pytest.mark.parametrize(
    "file",
    [
        "tokenizer_config.json",
        "tokenizer.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "config.json",
    ],
)
def test_json_that_is_none_is_one_line(folder, file, content):
    write(folder / file, content)
    assert file in refuse(folder, r"nested too deeply|damaged|not a JSON object")


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.txt", "added_tokens.json"])
def test_a_huge_file_is_refused_unread(folder, file):
    (folder / file).write_text("x")
    os.truncate(folder / file, 200 << 20)
    refuse(folder, r"has 209715200 bytes, at most")


def test_a_pipe_is_not_waited_for(folder):
    (folder / "tokenizer_config.json").unlink()
    os.mkfifo(folder / "tokenizer_config.json")
    refuse(folder, "is not a regular file")


def test_a_panic_of_the_library_is_one_line(folder, capfd):
    """Rust would write its backtrace to standard error, around Python."""
    tokenizer = transformers.BertTokenizer(vocab={t: i for i, t in enumerate(UNCASED)})
    tokenizer.save_pretrained(folder)
    change(
        folder / "tokenizer.json",
        normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    )
    refuse(folder, "cannot be read")
    assert capfd.readouterr().err == ""


# Files that do not fit.


def test_a_vocabulary_of_words_beside_a_roberta_is_read_as_such(folder):
    """Chinese RoBERTas are published so; transformers would invent 5 tokens."""
    (folder / "tokenizer_config.json").unlink()
    write(folder / "config.json", {"model_type": "roberta"})
    assert encode(folder, "Good film") == ["[CLS]", "good", "film", "[SEP]"]


def test_a_stated_class_needs_its_own_files(folder):
    change(folder / "tokenizer_config.json", tokenizer_class="RobertaTokenizer")
    line = refuse(folder, r"RobertaTokenizer reads vocab\.json and merges\.txt")
    assert "has vocab.txt" in line


def test_a_vocabulary_of_another_kind_is_refused(folder):
    (folder / "vocab.txt").rename(folder / "vocab.json")
    write(folder / "vocab.json", {token: i for i, token in enumerate(UNCASED)})
    refuse(folder, r"BertTokenizer reads vocab\.txt; it has vocab\.json")


def make_bytes_level(folder, merges):
    """Writes a RoBERTa's files whose whole words stand behind a space."""
    letters = {letter for word in WORDS for letter in word}
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\u0120", *sorted(letters)]
    rules = []
    for word in WORDS:
        part = "\u0120"
        for letter in word:
            rules.append(f"{part} {letter}")
            tokens.append(part := part + letter)
    ids = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    for name in ("vocab.txt", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    write(folder / "config.json", {"model_type": "roberta"})
    write(folder / "vocab.json", ids)
    write(folder / "merges.txt", "\n".join(dict.fromkeys(rules)) if merges else "")
    return folder


def test_merges_make_words_and_empty_ones_are_refused(folder):
    whole = encode(make_bytes_level(folder, merges=True), " good film")
    assert whole == ["<s>", "\u0120good", "\u0120film", "</s>"]
    refuse(make_bytes_level(folder, merges=False), "splits .* words .* into pieces")


def test_a_tokenizer_json_of_another_kind_is_read_as_it_is(folder):
    """A RoBERTa whose tokenizer.json holds word pieces, and no class."""
    tokenizer = transformers.BertTokenizer(vocab={t: i for i, t in enumerate(UNCASED)})
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    write(folder / "config.json", {"model_type": "roberta"})
    change(folder / "tokenizer_config.json", tokenizer_class=None, pad_token="[PAD]")
    assert encode(folder, "good film") == ["[CLS]", "good", "film", "[SEP]"]


def test_capitals_of_a_cased_vocabulary_are_kept_or_refused(folder):
    write(folder / "vocab.txt", "\n".join(CASED) + "\n")
    change(folder / "tokenizer_config.json", do_lower_case=False)
    want = ["[CLS]", "Good", "film", "[SEP]"]
    assert encode(folder, "Good film") == want
    change(folder / "tokenizer_config.json", do_lower_case=True)
    assert "set do_lower_case to false" in refuse(folder, "lower-cases text")
    # Where nothing is said, the vocabulary tells; and then tokenizer.json.
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    assert encode(folder, "Good film") == want
    change(folder / "tokenizer_config.json", do_lower_case=False)
    load_tokenizer(folder, 64).backend_tokenizer.save(str(folder / "tokenizer.json"))
    write(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    assert encode(folder, "Good film") == want


@pytest.mark.parametrize("missing", ["[CLS]", "[SEP]", "[PAD]", "[UNK]"])
def test_special_tokens_must_be_in_the_vocabulary(folder, missing):
    """Transformers would add them, behind the rows that the encoder has trained."""
    rest = [token for token in UNCASED if token != missing]
    write(folder / "vocab.txt", "\n".join(rest) + "\n")
    refuse(folder, rf"its \w+_token \{missing[:-1]}\] in its vocabulary")


def test_added_special_tokens_are_stated_ones(folder):
    """As ModernBERT's: they are in no vocabulary, but in tokenizer.json."""
    backend = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "good": 1}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    backend.add_special_tokens(["[CLS]", "[SEP]", "[PAD]"])
    names = {f"{n}_token": f"[{n.upper()}]" for n in ("unk", "cls", "sep", "pad")}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    for file in folder.iterdir():
        file.unlink()
    tokenizer.save_pretrained(folder)
    assert load_tokenizer(folder, 64).pad_token_id == 4


def test_a_stray_capital_makes_no_vocabulary_cased(folder):
    more = [first + second for first in WORDS for second in WORDS]
    write(folder / "vocab.txt", "\n".join([*UNCASED, *more, "COVID"]) + "\n")
    assert encode(folder, "Good FILM") == ["[CLS]", "good", "film", "[SEP]"]


def test_signs_of_another_encoders_tokenizer_are_said(folder, caplog):
    tokenizer = load_tokenizer(folder, 64)
    check_vocabulary(tokenizer, len(UNCASED), pad_id=0)
    assert not caplog.text
    check_vocabulary(tokenizer, 30522, pad_id=1)
    assert "table has 30522 rows: does it belong to the encoder?" in caplog.text
    assert "pad_token_id=1: does it belong to the encoder?" in caplog.text


def test_an_unknown_class_says_what_to_do(folder):
    change(folder / "tokenizer_config.json", tokenizer_class="BertJapaneseTokenizer")
    line = refuse(folder, "is a BertJapaneseTokenizer, which is not supported")
    assert "set tokenizer_class to PreTrainedTokenizerFast" in line


def test_links_of_a_cache_are_followed(folder, tmp_path_factory):
    """The hub's cache holds links to files elsewhere."""
    cache = tmp_path_factory.mktemp("snapshot")
    for file in folder.iterdir():
        (cache / file.name).symlink_to(file)
    assert encode(cache, "good film") == encode(folder, "good film")
    shutil.rmtree(cache)
