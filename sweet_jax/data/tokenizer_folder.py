"""Reads the tokenizer of a folder that may be hostile; none of its code is run.

transformers would look up code that a folder names and ask on standard input whether to
run it, and it passes every field of tokenizer_config.json to a constructor. So the
class is chosen here, from a table, and transformers reads a temporary folder with only
the vocabulary and the fields that are checked below.
"""

import importlib.util
import tempfile
from collections.abc import Container, Iterable, Mapping, Sized
from pathlib import Path
from typing import Any

from sweet_jax.data.tokenizer_classes import PreTrainedTokenizerFast, transformers
from sweet_jax.data.tokenizer_config import (
    CONFIG_NAME,
    REMEDY,
    copy_token_files,
    dump_fields,
    read_config,
    write_json,
)
from sweet_jax.data.vocabulary import find_words, guard_library, is_cased
from sweet_jax.system import files
from sweet_jax.system.packages import install_extra

_JSON = "tokenizer.json"
_GENERIC = "PreTrainedTokenizerFast"
# The largest published vocabulary has 901,629 tokens; far larger ones take minutes.
_MOST_TOKENS = 1_000_000
# Name of a class without `Fast` -> the vocabulary files that it reads if there is no
# tokenizer.json.
_CLASSES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "BertTokenizer",
            "ConvBertTokenizer",
            "DistilBertTokenizer",
            "FunnelTokenizer",
            "MPNetTokenizer",
            "MobileBertTokenizer",
            "SqueezeBertTokenizer",
        ),
        ("vocab.txt",),
    ),
    **dict.fromkeys(
        (
            "BartTokenizer",
            "DebertaTokenizer",
            "GPT2Tokenizer",
            "GPTNeoXTokenizer",
            "HerbertTokenizer",
            "RobertaTokenizer",
        ),
        ("vocab.json", "merges.txt"),
    ),
    "AlbertTokenizer": ("spiece.model",),
    "BigBirdTokenizer": ("spiece.model",),
    "CamembertTokenizer": ("sentencepiece.bpe.model",),
    "DebertaV2Tokenizer": ("spm.model",),
    "RemBertTokenizer": ("sentencepiece.model",),
    "T5Tokenizer": ("spiece.model",),
    "XLMRobertaTokenizer": ("sentencepiece.bpe.model",),
    "PreTrainedTokenizer": (),
    "TokenizersBackend": (),
}
TOKENIZER_FILES = (_JSON, *sorted({f for names in _CLASSES.values() for f in names}))
# Classes that transformers has removed: tokenizer.json alone defines them.
_FORMER = ("ElectraTokenizer", "LayoutLMTokenizer", "RetriBertTokenizer")
_BY_FAMILY = {
    "bert": "BertTokenizer",
    "deberta": "DebertaTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
# Published files of this family name classes that would read them wrongly.
_ALWAYS_GENERIC = ("modernbert",)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of a folder, as transformers reads it.

    Args:
        folder: has a tokenizer.json, or the vocabulary files of its family.

    Raises:
        ValueError: there is no tokenizer file; or the files contradict each other,
            cannot be read, ask for code, or need a package that is not installed.
    """
    stated = read_config(folder)
    family, from_encoder = _read_family(folder)
    _refuse_code(folder, stated.auto_map, stated.tokenizer_class)
    name = stated.tokenizer_class or from_encoder
    used, class_name = _choose_files(folder, name, family)
    fields, content = dump_fields(stated), {}
    if used == (_JSON,):
        content = _read_json(folder)
        fields = {**_read_normalizer(content), **fields}
    elif used == ("vocab.txt",):
        # transformers would always lower-case text for a bare vocabulary; the words in
        # the vocabulary show whether that is right.
        words = find_words({t: 0 for t in _read_tokens(folder / "vocab.txt")})
        fields = {"do_lower_case": not is_cased(words), **fields}
    for file in used:
        if file == "vocab.json":
            _check_length(folder / file, files.read_object(folder / file, REMEDY))
        elif not content:
            files.read_bytes(folder / file, REMEDY)  # Checks kind and size.
    reader: Any = getattr(transformers, class_name)
    kind = content.get("model", {}).get("type")
    if kind and reader.model is not None and kind != reader.model.__name__:
        # This class would read the vocabulary as one of another model type.
        reader = PreTrainedTokenizerFast
    with tempfile.TemporaryDirectory() as temporary:
        checked = Path(temporary)
        for file in used:
            (checked / file).symlink_to((folder / file).resolve())
        write_json(checked / CONFIG_NAME, fields)
        older = copy_token_files(folder, checked)
        with guard_library(folder):
            tokenizer = reader.from_pretrained(
                checked, local_files_only=True, trust_remote_code=False
            )
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(
            f"the tokenizer in {folder} is a {type(tokenizer).__name__} without a"
            f" {_JSON}: save one with its save_pretrained"
        )
    added = {token.content for token in (stated.added_tokens_decoder or {}).values()}
    added.update(token["content"] for token in content.get("added_tokens", ()))
    _check_special_tokens(tokenizer, added.union(older), folder)
    return tokenizer


def _check_special_tokens(
    tokenizer: PreTrainedTokenizerFast, added: Container[str], folder: Path
) -> None:
    """Raises ValueError if a special token is not in the vocabulary.

    transformers would give it a new id, for which the encoder has no trained row.
    """
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    for name in ("cls", "sep", "pad", "unk"):
        token = getattr(tokenizer, f"{name}_token")
        if token is not None and token not in vocabulary and token not in added:
            raise ValueError(
                f"the tokenizer in {folder} does not have its {name}_token"
                f" {files.show(token[:40])} in its vocabulary: its files belong to"
                " different tokenizers; use the tokenizer that belongs to the encoder"
            )


def _read_family(folder: Path) -> tuple[str | None, str | None]:
    """Returns family and tokenizer class from the encoder's config.json, or Nones."""
    path = folder / "config.json"
    if not path.is_file():
        return None, None
    attributes = files.read_object(path, REMEDY)
    auto_map = attributes.get("auto_map")
    # An auto_map of model classes only concerns the encoder, and is never run.
    if isinstance(auto_map, dict) and "AutoTokenizer" in auto_map:
        _refuse_code(folder, auto_map, attributes.get("tokenizer_class"))
    family, name = attributes.get("model_type"), attributes.get("tokenizer_class")
    return (
        family if isinstance(family, str) else None,
        name if isinstance(name, str) else None,
    )


def _refuse_code(folder: Path, auto_map: Any, name: Any) -> None:
    """Raises ValueError for a tokenizer that needs code of a folder or repository."""
    wanted = auto_map.get("AutoTokenizer") if isinstance(auto_map, dict) else auto_map
    if wanted is None:
        return
    parts = wanted if isinstance(wanted, list | tuple) else [wanted]
    code = files.show(", ".join(str(part) for part in parts if part)[:100])
    shown = files.show(str(name)[:60]) if name else "its tokenizer"
    raise ValueError(
        f"the tokenizer in {folder} asks for code of its own ({shown}, by auto_map:"
        f" {code}), which is never run: if {_JSON} defines it fully, remove auto_map"
        f" from {CONFIG_NAME} and set tokenizer_class to {_GENERIC}"
    )


def _choose_files(
    folder: Path, name: str | None, family: str | None
) -> tuple[tuple[str, ...], str]:
    """Returns the vocabulary files to read and the transformers class for them."""
    has_json = (folder / _JSON).is_file()
    short = name.removesuffix("Fast") if name else None
    if short in _FORMER or (has_json and family in _ALWAYS_GENERIC):
        short = "PreTrainedTokenizer"
    if short is not None and short not in _CLASSES:
        raise ValueError(
            f"the tokenizer in {folder} is a {files.show(short[:60])}, which is not"
            f" supported: if {_JSON} defines it fully, set tokenizer_class to"
            f" {_GENERIC} in {CONFIG_NAME}; supported are {', '.join(sorted(_CLASSES))}"
        )
    stated = short is not None
    if short is None:
        short = _BY_FAMILY.get(family or "")
    if has_json:
        return (_JSON,), _find_class(short)
    there = [file for file in TOKENIZER_FILES if (folder / file).is_file()]
    needed = _CLASSES[short] if short else ()
    if needed and set(needed) <= set(there):
        _check_package(folder, needed)
        return needed, _find_class(short)
    # Chinese RoBERTas are published with a BERT vocabulary.
    if not stated and "vocab.txt" in there:
        return ("vocab.txt",), "BertTokenizer"
    _check_package(folder, there)
    if there and short and needed:
        raise ValueError(
            f"{folder} has no {_JSON}, and a {short} reads {' and '.join(needed)}; it"
            f" has {', '.join(there)}: use the tokenizer that belongs to the encoder,"
            f" or name its class as tokenizer_class in {CONFIG_NAME}"
        )
    if there:
        raise ValueError(
            f"{folder} has {', '.join(there)} and nothing says how to read them: copy"
            f" {_JSON}, too, or name the class as tokenizer_class in {CONFIG_NAME}"
        )
    raise ValueError(
        f"{folder} holds no tokenizer: expected {_JSON} or vocab.txt beside the"
        " encoder's config.json"
    )


def _find_class(short: str | None) -> str:
    return _GENERIC if short in (None, "PreTrainedTokenizer") else str(short)


def _check_package(folder: Path, used: Iterable[str]) -> None:
    # Without the package, transformers would read the file as another kind.
    models = [file for file in used if file.endswith(".model")]
    if models and importlib.util.find_spec("sentencepiece") is None:
        raise ValueError(
            f"{folder} has no {_JSON}, and reading its {models[0]} needs the package"
            f" sentencepiece: {install_extra('sentencepiece')}"
        )


def _read_json(folder: Path) -> dict[str, Any]:
    with guard_library(folder):
        content = files.read_object(folder / _JSON, "it is not a tokenizer")
        model = content.get("model")
        if not isinstance(model, dict):
            raise ValueError(f"{_JSON} has no model")
        for name in ("vocab", "merges"):
            _check_length(folder / _JSON, model.get(name) or ())
        tokens = content.get("added_tokens", [])
        if not isinstance(tokens, list) or not all(
            isinstance(token, dict) and isinstance(token.get("content"), str)
            for token in tokens
        ):
            raise ValueError(f"the added_tokens of {_JSON} are not a list of tokens")
    return content


def _read_normalizer(content: Mapping[str, Any]) -> dict[str, bool]:
    """Returns the normaliser of a BERT's tokenizer.json as fields of the config.

    transformers rebuilds the normaliser from tokenizer_config.json alone: without these
    fields it would lower-case text for a cased vocabulary.
    """
    normalizer = content.get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return {}
    names = {
        "lowercase": "do_lower_case",
        "strip_accents": "strip_accents",
        "handle_chinese_chars": "tokenize_chinese_chars",
    }
    return {
        ours: normalizer[theirs]
        for theirs, ours in names.items()
        if isinstance(normalizer.get(theirs), bool)
    }


def _check_length(path: Path, tokens: Any) -> None:
    if not isinstance(tokens, Sized) or len(tokens) > _MOST_TOKENS:
        raise files.FileError(
            f"{path} has no list of at most {_MOST_TOKENS} tokens: {REMEDY}"
        )


def _read_tokens(path: Path) -> list[str]:
    data = files.read_bytes(path, REMEDY)
    try:
        tokens = data.decode("utf-8").splitlines()
        _check_length(path, tokens)
        return tokens
    except UnicodeDecodeError as error:
        raise files.FileError(f"{path} is damaged ({error}): {REMEDY}") from error
