"""config.json: what is read, refused, ignored."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import pytest
from published import PUBLISHED

from sweet_jax.huggingface.config import load_config, make_encoder, parse_config
from sweet_jax.huggingface.families import FAMILIES

# The config.json of bert-base-uncased, stray keys and all.
BERT_BASE = {
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "transformers_version": "4.6.0.dev0",
    "type_vocab_size": 2,
    "use_cache": True,
    "vocab_size": 30522,
}


def _write(folder: Path, text: str) -> Path:
    (folder / "config.json").write_text(text)
    return folder


def test_every_field_is_read(tmp_path):
    attributes = {
        "model_type": "bert",
        "vocab_size": 101,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 50,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0,  # JSON has no 0.0 of its own
        "attention_probs_dropout_prob": 0.25,
        "max_position_embeddings": 77,
        "type_vocab_size": 5,
        "layer_norm_eps": 1e-5,
        "initializer_range": 0.01,
        "pad_token_id": 9,
    }
    config = load_config(_write(tmp_path, json.dumps(attributes)))
    assert (config.vocab_size, config.hidden_size, config.num_layers) == (101, 24, 3)
    assert (config.num_heads, config.intermediate_size) == (4, 50)
    assert (config.hidden_act, config.hidden_dropout) == ("relu", 0.0)
    assert (config.attention_dropout, config.max_positions) == (0.25, 77)
    assert (config.num_types, config.norm_epsilon) == (5, 1e-5)
    assert (config.initializer_range, config.pad_token_id) == (0.01, 9)
    assert config.family == "bert"


def test_absent_attributes_take_the_published_defaults():
    needed = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")
    needed += ("num_attention_heads", "intermediate_size", "max_position_embeddings")
    sparse = parse_config({name: BERT_BASE[name] for name in needed})
    assert sparse == parse_config(BERT_BASE)


def test_null_means_absent():
    assert parse_config({**BERT_BASE, "pad_token_id": None}) == parse_config(BERT_BASE)


@pytest.mark.reference
@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_those_of_transformers(family):
    import transformers

    # Without these it would be another family under this name: refused.
    needed = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
    needed = needed if family.startswith("deberta") else {}
    theirs = transformers.AutoConfig.for_model(family, **needed).to_dict()
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    sizes += ("model_type", "intermediate_size", "max_position_embeddings", *needed)
    assert parse_config({name: theirs[name] for name in sizes}) == parse_config(theirs)


def test_roberta_positions_start_past_the_padding_token():
    attributes, _ = PUBLISHED["roberta-base"]
    config = parse_config(attributes)
    assert (config.num_positions, config.max_positions) == (514, 512)
    assert config.position_offset == 2
    config = parse_config({**attributes, "pad_token_id": 7})
    assert (config.position_offset, config.max_positions) == (8, 506)
    with pytest.raises(ValueError, match="max_position_embeddings leaves no position"):
        parse_config({**attributes, "max_position_embeddings": 2})


def test_xlm_roberta_is_a_roberta_of_another_name():
    attributes, _ = PUBLISHED["roberta-base"]
    config = parse_config({**attributes, "model_type": "xlm-roberta"})
    assert config.family == "xlm-roberta"
    assert dataclasses.replace(config, family="roberta") == parse_config(attributes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position_embedding_type": "relative_key"}, r"_type='rel.*'absolute'"),
        ({"is_decoder": True}, r"is_decoder=True is not implemented"),
        ({"add_cross_attention": True}, r"add_cross_attention=True"),
        ({"pruned_heads": {"0": [1]}}, r"pruned_heads="),
        ({"quantization_config": {"bits": 8}}, r"quantization_config="),
        ({"hidden_act": "mish"}, r"hidden_act='mish'.*'gelu', 'gelu_new'"),
        ({"rope": 7, "alibi": True}, r"unknown attribute alibi, rope.*ignore_attrib"),
        ({"hidden_size": "768"}, r"hidden_size='768' is not of type int"),
        ({"hidden_size": 768.0}, r"hidden_size=768.0 is not of type int"),
        ({"layer_norm_eps": True}, r"layer_norm_eps=True is not of type float"),
        ({"num_hidden_layers": 0}, r"num_hidden_layers=0 must be at least 1"),
        ({"hidden_dropout_prob": -0.1}, r"hidden_dropout_prob=-0.1 must be at least 0"),
        ({"num_attention_heads": 7}, r"hidden_size=768 is not a multiple.*=7"),
        ({"vocab_size": None}, r"lacks vocab_size"),
        ({"model_type": "llama"}, r"'llama' is not supp.*are bert, .*an-encoder"),
    ],
)  # fmt: skip
def test_other_mathematics_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_config({**BERT_BASE, **change})
    assert "\n" not in str(error.value)


def test_a_missing_model_type_says_what_to_add():
    attributes = {k: v for k, v in BERT_BASE.items() if k != "model_type"}
    with pytest.raises(ValueError, match=r'no model_type: add it.*"bert"'):
        parse_config(attributes)


def test_the_person_may_ignore_attributes_but_not_what_is_read():
    attributes = {**BERT_BASE, "rope": 7, "is_decoder": True}
    ignored = ("rope", "is_decoder")
    assert parse_config(attributes, ignored) == parse_config(BERT_BASE)
    with pytest.raises(ValueError, match="hidden_act='mish'"):
        parse_config({**BERT_BASE, "hidden_act": "mish"}, ("hidden_act",))


def test_stray_keys_of_hub_configs_are_harmless():
    stray = {
        "classifier_dropout": None,
        "directionality": "bidi",
        "pooler_fc_size": 768,
        "id2label": {"0": "a"},
        "torch_dtype": "float32",
        "tie_word_embeddings": True,
        "pruned_heads": {},
    }
    assert parse_config({**BERT_BASE, **stray}) == parse_config(BERT_BASE)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is damaged"), ("[1]", "not a JSON object"), (None, "has no config.json")],
)
def test_an_unreadable_file_is_one_line(tmp_path, text, message):
    if text is not None:
        _write(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        load_config(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_layers", [0, 13])
def test_an_encoder_is_no_deeper_than_its_checkpoint(num_layers):
    with pytest.raises(ValueError, match=f"num_layers={num_layers}.*12 layers"):
        make_encoder(parse_config(BERT_BASE), num_layers, jnp.float32)
