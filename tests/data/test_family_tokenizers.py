"""Each family's own special tokens, type ids and padding, on pairs of texts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import models, pre_tokenizers, processors

from sweet_jax.data.examples import Examples
from sweet_jax.data.tokenize import load_tokenizer, tokenize_examples

WORDS = ["good", "bad", "film"]


def make_bert() -> Any:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return transformers.BertTokenizer(vocab={t: i for i, t in enumerate(tokens)})


def make_roberta() -> Any:
    # Byte-level: a word that follows another starts with its space.
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"godbafilm", "\u0120"]
    return transformers.RobertaTokenizer(
        vocab={t: i for i, t in enumerate(dict.fromkeys(tokens))}, merges=[]
    )


def make_xlm_roberta() -> Any:
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *(f"\u2581{word}" for word in WORDS)]
    return transformers.XLMRobertaTokenizer(vocab=[(t, -1.0) for t in tokens])


def make_mpnet() -> Any:
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>", *WORDS]
    return transformers.MPNetTokenizer(vocab={t: i for i, t in enumerate(tokens)})


def make_modernbert() -> Any:
    # Of no class of the family's own: all is in the file. The encoder reads no type
    # ids, whatever a template gives.
    tokens = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", *WORDS]
    backend = tokenizers.Tokenizer(
        models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", "attention_mask"],
        **{
            f"{n}_token": f"[{n.upper()}]" for n in ("unk", "cls", "sep", "pad", "mask")
        },
    )


def make_deberta() -> Any:
    tokens = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"godbafilm", "\u0120", "[MASK]"]
    return transformers.DebertaTokenizer(
        vocab={t: i for i, t in enumerate(dict.fromkeys(tokens))}, merges=[]
    )


def make_deberta_v2() -> Any:
    special = [(token, 0.0) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")]
    words = [(f"\u2581{word}", -1.0) for word in WORDS]
    return transformers.DebertaV2Tokenizer(vocab=special + words)


# family -> (tokenizer, layout of a pair, type ids of layout, padding id)
FAMILIES = {
    "bert": (make_bert, "[CLS] a [SEP] b [SEP]", [0, 0, 0, 1, 1], 0),
    "roberta": (make_roberta, "<s> a </s> </s> b </s>", [0] * 6, 1),
    "mpnet": (make_mpnet, "<s> a </s> </s> b </s>", [0] * 6, 1),
    "modernbert": (make_modernbert, "[CLS] a [SEP] b [SEP]", [0, 0, 0, 1, 1], 3),
    "xlm-roberta": (make_xlm_roberta, "<s> a </s> </s> b </s>", [0] * 6, 1),
    # transformers says otherwise: its DeBERTa's pairs are RoBERTa's.
    "deberta": (make_deberta, "[CLS] a [SEP] b [SEP]", [0, 0, 0, 1, 1], 0),
    "deberta-v2": (make_deberta_v2, "[CLS] a [SEP] b [SEP]", [0, 0, 0, 1, 1], 0),
}


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_laid_out_as_the_family_does(tmp_path: Path, family, with_config):
    make, layout, types, pad_id = FAMILIES[family]
    published = make()
    published.save_pretrained(tmp_path)
    if not with_config:
        (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    tokenizer = load_tokenizer(tmp_path, 64)
    assert tokenizer.pad_token_id == pad_id
    first, second = "good", "bad film"
    zeros = np.zeros(1, np.int64)
    examples = Examples((first,), (second,), zeros.astype(np.int32), zeros)
    tokenized = tokenize_examples(tokenizer, examples, 64, None)
    ids = {"a": published.encode(first, add_special_tokens=False)}
    ids["b"] = published.encode(second, add_special_tokens=False)
    want_ids, want_types = [], []
    for token, token_type in zip(layout.split(), types, strict=True):
        part = ids.get(token) or [published.convert_tokens_to_ids(token)]
        want_ids += part
        want_types += [token_type] * len(part)
    assert tokenized.token_ids.tolist() == want_ids
    assert tokenized.type_ids.tolist() == want_types
    # The longer text pays, down to the last room beside the special tokens.
    lowest = len(layout.split()) - 1
    short = tokenize_examples(tokenizer, examples, lowest + 1, None)
    assert len(short.token_ids) == lowest + 1
