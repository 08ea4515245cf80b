"""A model folder with 2 layers, width 32 and random weights, whose cost is small."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from sweet_jax.arrays import LogitBank
from sweet_jax.data.tokenize import load_tokenizer
from sweet_jax.huggingface.config import load_config, make_encoder
from sweet_jax.models.init import compute_shapes
from sweet_jax.models.multi_exit import MultiExitClassifier
from sweet_jax.serving.description import ModelDescription
from sweet_jax.serving.model_folder import save_model_folder
from sweet_jax.settings.fields import ExitSettings
from sweet_jax.trees import flatten_paths, unflatten_paths

_LAYERS, _WIDTH = 2, 32
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_NEUTRAL = ("a", "the", "film", "plot", "cast", "scene", "and", "with", "very")
WORDS = (*_NEUTRAL, "good", "fine", "warm", "bad", "dull", "grim", "cold")
_ATTRIBUTES = {
    "model_type": "bert",
    "vocab_size": len(_SPECIAL) + len(WORDS),
    "hidden_size": _WIDTH,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 2 * _WIDTH,
    "max_position_embeddings": 32,
}


DESCRIPTION = ModelDescription(
    method="early_exit",
    task="file",
    metric="accuracy",
    label_names=("negative", "positive"),
    has_pairs=False,
    text_columns=("text",),
    label_column="label",
    exit_layers=(0, 1),
    member_exits=((0, 1),),
    shared_pooler=False,
    pooling="mean",
    dtype="float32",
    matmul_precision="highest",
    ignore_attributes=(),
    max_length=32,
    buckets=(8, 16, 32),
    temperatures=(1.0, 0.8),
    cost_fractions=(0.5, 1.0),
    thresholds={},
    digest="0" * 16,
    separate_tables=False,
    lte_ranges=(),
    bucket_rows=(4, 2, 2),
)


def write_tiny_model(folder: Path, has_pairs: bool = False) -> Path:
    """Writes the folder; at threshold 0.8 a quarter of `write_lines` passes exit 0.

    Args:
        folder: the model folder to write.
        has_pairs: whether the model takes pairs of texts.

    Returns:
        The folder.
    """
    source = folder.with_name(f"{folder.name}-encoder")
    source.mkdir(parents=True)
    (source / "config.json").write_text(json.dumps(_ATTRIBUTES), encoding="utf-8")
    write_word_tokenizer(source, _SPECIAL + WORDS)
    config = load_config(source)
    model = MultiExitClassifier(
        encoder=make_encoder(config, _LAYERS, jnp.float32),
        exit_layers=(0, 1),
        exit_numbers=(0, 1),
        num_classes=2,
        features=_WIDTH,
        settings=ExitSettings(pooling="mean", dropout=0.1),
    )
    rng = np.random.default_rng(0)
    # Norm scales are 1, otherwise all texts get almost the same output.
    params = {
        path: (path.endswith("scale") + rng.normal(0, 0.3, leaf.shape)).astype("f4")
        for path, leaf in flatten_paths(compute_shapes(model)).items()
    }
    description = dataclasses.replace(
        DESCRIPTION,
        has_pairs=has_pairs,
        text_columns=("sentence1", "sentence2") if has_pairs else ("text",),
    )
    save_model_folder(
        folder,
        description,
        unflatten_paths(params),
        source / "config.json",
        load_tokenizer(source, config.max_positions),
        make_calibration(description),
    )
    return folder


def make_calibration(description: ModelDescription) -> LogitBank:
    """Returns random outputs on 8 calibration rows, 4 in each part."""
    num_rows, num_exits = 8, len(description.exit_layers)
    num_classes = len(description.label_names)
    rng, rows_N = np.random.default_rng(0), np.arange(num_rows)
    scores_NE = rng.random((num_rows, num_exits), np.float32)
    return LogitBank(
        logits=rng.normal(size=(num_rows, num_exits, num_classes)).astype("f4"),
        labels=(rows_N % num_classes).astype(np.int32),
        weights=np.ones(num_rows, np.float32),
        row_ids=rows_N,
        part=(rows_N % 2).astype(np.int32),
        lte=scores_NE if description.lte_ranges else None,
    )


def write_lines(path: Path, count: int, seed: int = 0) -> Path:
    """Writes short lines of known words; returns the path."""
    rng = np.random.default_rng(seed)
    with path.open("w", encoding="utf-8") as file:
        for length in rng.integers(2, 13, count):
            file.write(" ".join(rng.choice(WORDS, length)) + "\n")
    return path


def write_word_tokenizer(folder: Path, words: Sequence[str]) -> None:
    """Writes a tokenizer of whole lower-case words.

    Args:
        folder: folder of an encoder.
        words: the vocabulary; it begins with [PAD], [UNK], [CLS] and [SEP].
    """
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special}),
        encoding="utf-8",
    )
