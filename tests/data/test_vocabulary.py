"""A vocabulary says what ordinary text is, and whether its tokenizer reads it."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from sweet_jax.data.vocabulary import (
    check_tokenizer,
    find_words,
    guard_library,
    is_cased,
)

FOLDER = Path("some/encoder")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["good", "bad", "film", "plot", "warm", "cold", "scene", "music", "actor", "it"]
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
UNCASED = [*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
CASED = [*UNCASED, *(word.title() for word in WORDS), *map(str.upper, LETTERS)]


def make_bert(tokens: list[str], **options: Any) -> Any:
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return transformers.BertTokenizer(vocab=vocabulary, **options)


def make_words(tokens: list[str], processor: Any = None) -> Any:
    """Returns a tokenizer that splits at blanks and knows whole words alone."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    if processor is not None:
        backend.post_processor = processor
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]"
    )


def refuse(tokenizer: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        check_tokenizer(tokenizer, FOLDER)
    assert f"the tokenizer in {FOLDER} " in str(error.value)
    assert "\n" not in str(error.value)


# How a vocabulary marks what stands behind a space, or in a word.
@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["good", "##ly", "##s", "[CLS]", "1970", "a"], {"good": 0}),
        (["\u0120good", "\u0120gut", "ly", "\u0120"], {"good": 0, "gut": 1}),
        # Letters of bytes: Ã© is é.
        (["\u0120caf\u00c3\u00a9", "\u0120a", "\u0120\u00c3"], {"caf\u00e9": 0}),
        (["\u2581good", "\u2581gut", "ly", "<s>"], {"good": 0, "gut": 1}),
        (["good</w>", "gut</w>", "ly"], {"good": 0, "gut": 1}),
        # One entry with a mark makes no such vocabulary.
        (["good", "gut", "\u2581x"], {"good": 0, "gut": 1}),
        (["##s", "\u597d", "\u574f", "##\u597d"], {"\u597d": 1, "\u574f": 2}),
        (["\u0939\u093f\u0928\u094d\u0926\u0940", "##x"], {
            "\u0939\u093f\u0928\u094d\u0926\u0940": 0
        }),
        (["[CLS]", "12", "##"], {}),
    ],
)  # fmt: skip
def test_words_are_those_that_stand_whole(tokens, words):
    assert find_words({token: i for i, token in enumerate(tokens)}) == words


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_a_vocabulary_is_cased_if_more_than_a_few_words_are(lower, upper, without_case):
    words = ["good"] * lower + ["Good"] * upper + ["\u597d"] * without_case
    assert is_cased(words) == (upper > 0 and upper >= 0.02 * (lower + upper))


@pytest.mark.parametrize(
    "tokenizer",
    [
        make_bert(UNCASED),
        make_bert(CASED, do_lower_case=False),
        make_words([*SPECIAL, *WORDS, *(word.title() for word in WORDS)]),
        make_words(SPECIAL),
    ],
    ids=["uncased", "cased", "words", "nothing"],
)
def test_a_tokenizer_of_its_own_vocabulary_passes(tokenizer, caplog):
    check_tokenizer(tokenizer, FOLDER)
    assert not caplog.text


def test_words_that_are_cut_say_that_merges_are_missing():
    """Bytes behind a space whose words nothing puts together."""
    letters = {letter for word in WORDS for letter in word}
    tokens = ["[UNK]", "\u0120", *sorted(letters), *(f"\u0120{w}" for w in WORDS)]
    vocabulary = {token: i for i, token in enumerate(tokens)}

    def make(merges: list[tuple[str, str]]) -> Any:
        backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=backend, unk_token="[UNK]"
        )

    refuse(
        make([]), r"splits 10 of 10 words .* into pieces, such as '[a-z]+': its merg"
    )
    parts = [f"\u0120{word[:n]}" for word in WORDS for n in range(1, len(word) + 1)]
    for part in parts:
        vocabulary.setdefault(part, len(vocabulary))
    merges = [
        (f"\u0120{word[:n]}", word[n]) for word in WORDS for n in range(len(word))
    ]
    check_tokenizer(make(list(dict.fromkeys(merges))), FOLDER)


def test_capitals_that_are_lost_say_which_field_keeps_them():
    tokenizer = make_bert(CASED, do_lower_case=True)
    refuse(
        tokenizer, r"lower-cases text, and its vocabulary has 10 words with capitals"
    )
    refuse(tokenizer, "such as '[A-Z][a-z]+': set do_lower_case to false in its tok")


def test_a_vocabulary_and_its_unknown_token_of_two_tokenizers_are_refused():
    """Every word becomes [UNK] where the words stand behind another mark."""
    tokens = [*SPECIAL, *(f"\u0120{word}" for word in WORDS)]
    refuse(make_bert(tokens), r"unknown tokens for 10 of 10 words")


def test_a_lower_case_vocabulary_without_lower_casing_is_said(caplog):
    """Not refused: published Chinese encoders are so, and rarely read capitals."""
    check_tokenizer(make_bert(UNCASED, do_lower_case=False), FOLDER)
    # It has a token for every letter, but for no capital.
    assert "words with capitals become unknown" in caplog.text
    assert str(FOLDER) in caplog.text


@pytest.mark.parametrize(
    ("layout", "message"),
    [(("ids", [9999]), "gives texts the token id 9999"), (("type_id", 7), "type id 7")],
)
@pytest.mark.parametrize("form", ["single", "pair"])
def test_layouts_give_ids_that_exist(layout, message, form):
    """A template may say any id; past the table, a lookup is silent."""
    name, value = layout
    kind = value if name == "type_id" else 0
    forms = {"single": "[UNK] $A", "pair": "[UNK] $A $B:1"}
    forms[form] = f"[X]:{kind} {forms[form]}"
    token_id = value[0] if name == "ids" else 1
    processor = tokenizers.processors.TemplateProcessing(  # type: ignore[attr-defined]
        **forms, special_tokens=[("[UNK]", 0), ("[X]", token_id)]
    )
    refuse(make_words(["[UNK]", "good"], processor), message)


@pytest.mark.parametrize(
    "tokens",
    [
        [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)],
        [*SPECIAL, *"好坏电影音乐很的是不", "good", "##影"],
        [*SPECIAL, "भारत", "हिन्दी", "ไทย", "كتاب", "слово", "λόγος"],
    ],
    ids=["letters", "Chinese", "other scripts"],
)
def test_vocabularies_of_other_kinds_and_scripts_pass(tokens):
    check_tokenizer(make_bert(tokens, strip_accents=False), FOLDER)


class PanicException(BaseException):
    """What a panic of Rust code becomes."""


@pytest.mark.parametrize(
    "error", [ValueError("a\nb\x1b[31m"), PanicException("x" * 10_000), KeyError("x")]
)
def test_any_error_of_the_library_is_one_line(error, capfd):
    def fail() -> None:
        with guard_library(FOLDER):
            os.write(2, b"thread panicked at \x1b[31m")
            raise error

    with pytest.raises(ValueError, match="tokenizer in some/encoder cannot be") as line:
        fail()
    assert line.value.__cause__ is error
    assert len(str(line.value)) < 400
    assert not {"\n", "\x1b"} & set(str(line.value))
    # Standard error is silent meanwhile, and there again behind it.
    print("later", file=sys.stderr)
    assert capfd.readouterr().err == "later\n"


def test_a_person_may_stop_the_library():
    with pytest.raises(KeyboardInterrupt), guard_library(FOLDER):
        raise KeyboardInterrupt
