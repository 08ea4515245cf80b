"""The encoder families: how each `model_type` reads its config.json."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from sweet_jax.huggingface.modernbert_config import unify_attributes
from sweet_jax.models.bert import BertConfig, BertEncoder
from sweet_jax.models.deberta import DebertaConfig, DebertaEncoder
from sweet_jax.models.deberta_v2 import DebertaV2Config, DebertaV2Encoder
from sweet_jax.models.encoder import Encoder, EncoderConfig
from sweet_jax.models.layers import ACTIVATIONS
from sweet_jax.models.modernbert import ModernbertConfig, ModernbertEncoder
from sweet_jax.models.mpnet import NUM_BUCKETS, MpnetConfig, MpnetEncoder
from sweet_jax.models.roberta import RobertaConfig


@dataclasses.dataclass(frozen=True)
class Family:
    """How one `model_type` maps to our config and encoder.

    Attributes:
        config_class: our frozen dataclass.
        encoder_class: our Linen module.
        fields: config attribute -> (our field, its type).
        defaults: Hugging Face's default values of absent attributes.
        mathematics: attributes that change the computed function -> allowed values.
        unread: attributes of hub configs that Hugging Face's own code never reads.
        layer_lists: attributes that are lists with an entry for each layer.
        unify: maps (attributes, file name for errors) to attributes under the names of
            `fields`, if versions of transformers name them differently.
        implied: attributes with only one implemented value -> that value, computed
            from the config.
        lowest: attribute -> its lowest value, where that is not 1 (0 for rates).
    """

    config_class: Callable[..., EncoderConfig]
    encoder_class: Callable[..., Encoder]
    fields: Mapping[str, tuple[str, type]]
    defaults: Mapping[str, Any]
    mathematics: Mapping[str, tuple[Any, ...]]
    unread: frozenset[str] = frozenset()
    layer_lists: frozenset[str] = frozenset()
    unify: Callable[[Mapping[str, Any], str], Mapping[str, Any]] | None = None
    implied: Mapping[str, Callable[[Any], Any]] = dataclasses.field(
        default_factory=dict
    )
    lowest: Mapping[str, int] = dataclasses.field(default_factory=dict)


# Attributes common to the post-norm families, under Hugging Face's names.
_FIELDS: dict[str, tuple[str, type]] = {
    "vocab_size": ("vocab_size", int),
    "hidden_size": ("hidden_size", int),
    "num_hidden_layers": ("num_layers", int),
    "num_attention_heads": ("num_heads", int),
    "intermediate_size": ("intermediate_size", int),
    "hidden_act": ("hidden_act", str),
    "hidden_dropout_prob": ("hidden_dropout", float),
    "attention_probs_dropout_prob": ("attention_dropout", float),
    "max_position_embeddings": ("num_positions", int),
    "layer_norm_eps": ("norm_epsilon", float),
    "initializer_range": ("initializer_range", float),
}
_DEFAULTS: dict[str, Any] = {
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
}
_MATHEMATICS: dict[str, tuple[Any, ...]] = {
    "hidden_act": tuple(ACTIVATIONS),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
    "tie_encoder_decoder": (False,),
    "cross_attention_hidden_size": (None,),
    "quantization_config": (None,),
    "is_causal": (False, None),
    "adapters": (None, {}),
}
_BERT_FIELDS: dict[str, tuple[str, type]] = {
    **_FIELDS,
    "type_vocab_size": ("num_types", int),
    "pad_token_id": ("pad_token_id", int),
}

# Widths that other families set freely.
_IMPLIED: dict[str, Callable[[Any], Any]] = {
    "embedding_size": lambda config: config.hidden_size,
    "attention_head_size": lambda config: config.hidden_size // config.num_heads,
}

_BERT = Family(
    config_class=BertConfig,
    encoder_class=BertEncoder,
    fields=_BERT_FIELDS,
    defaults={**_DEFAULTS, "type_vocab_size": 2, "pad_token_id": 0},
    mathematics=_MATHEMATICS,
    implied=_IMPLIED,
)
_ROBERTA = dataclasses.replace(
    _BERT,
    config_class=RobertaConfig,
    defaults={**_BERT.defaults, "pad_token_id": 1},
)
_MPNET = Family(
    config_class=MpnetConfig,
    encoder_class=MpnetEncoder,
    fields=_FIELDS,
    defaults=_DEFAULTS,
    mathematics={
        **_MATHEMATICS,
        # Hugging Face's code ignores other values, so they would have no effect.
        "relative_attention_num_buckets": (NUM_BUCKETS,),
        "pad_token_id": (1, None),
    },
    implied=_IMPLIED,
)
_MODERNBERT = Family(
    config_class=ModernbertConfig,
    encoder_class=ModernbertEncoder,
    fields={
        "vocab_size": ("vocab_size", int),
        "hidden_size": ("hidden_size", int),
        "num_hidden_layers": ("num_layers", int),
        "num_attention_heads": ("num_heads", int),
        "intermediate_size": ("intermediate_size", int),
        "hidden_activation": ("hidden_act", str),
        "embedding_dropout": ("embedding_dropout", float),
        "attention_dropout": ("attention_dropout", float),
        "mlp_dropout": ("mlp_dropout", float),
        "max_position_embeddings": ("max_positions", int),
        "layer_types": ("layer_types", tuple),
        "global_rope_theta": ("global_theta", float),
        "local_rope_theta": ("local_theta", float),
        "local_attention": ("local_attention", int),
        "norm_eps": ("norm_epsilon", float),
        "initializer_range": ("initializer_range", float),
    },
    defaults={
        "hidden_activation": "gelu",
        "embedding_dropout": 0.0,
        "attention_dropout": 0.0,
        "mlp_dropout": 0.0,
        "local_attention": 128,
        "norm_eps": 1e-5,
        "initializer_range": 0.02,
    },
    mathematics={
        **{name: _MATHEMATICS[name] for name in _MATHEMATICS if name not in _FIELDS},
        "rope_scaling": (None,),
        "hidden_activation": tuple(ACTIVATIONS),
        "attention_bias": (False,),
        "mlp_bias": (False,),
        "norm_bias": (False,),
    },
    # For heads, initial weights and kernels; the padding id only affects PyTorch's
    # gradient of the padding token.
    unread=frozenset(
        """
        classifier_activation classifier_bias classifier_pooling decoder_bias
        deterministic_flash_attn initializer_cutoff_factor pad_token_id
        position_embedding_type reference_compile repad_logits_with_grad
        sparse_pred_ignore_index sparse_prediction
        """.split()  # noqa: SIM905
    ),
    layer_lists=frozenset({"layer_types"}),
    unify=unify_attributes,
)

_DEBERTA = Family(
    config_class=DebertaConfig,
    encoder_class=DebertaEncoder,
    fields={
        **_BERT_FIELDS,
        "max_relative_positions": ("max_relative_positions", int),
        "position_biased_input": ("position_biased_input", bool),
    },
    defaults={
        **_DEFAULTS,
        "layer_norm_eps": 1e-7,
        "type_vocab_size": 0,
        "pad_token_id": 0,
        "max_relative_positions": -1,
        "position_biased_input": True,
        # Without these two, Hugging Face's model is a BERT, which is refused.
        "relative_attention": False,
        "pos_att_type": None,
    },
    mathematics={
        **_MATHEMATICS,
        "relative_attention": (True,),
        # Both terms, in either order and spelling.
        "pos_att_type": ("c2p|p2c", "p2c|c2p", ["c2p", "p2c"], ["p2c", "c2p"]),
        "talking_head": (False,),
    },
    implied=_IMPLIED,
    lowest={"type_vocab_size": 0, "max_relative_positions": -1},
)
_DEBERTA_V2 = dataclasses.replace(
    _DEBERTA,
    config_class=DebertaV2Config,
    encoder_class=DebertaV2Encoder,
    fields={
        **_DEBERTA.fields,
        "position_buckets": ("position_buckets", int),
        "share_att_key": ("share_att_key", bool),
        "norm_rel_ebd": ("norm_rel_ebd", str),
        "conv_kernel_size": ("conv_kernel_size", int),
        "conv_act": ("conv_act", str),
    },
    defaults={
        **_DEBERTA.defaults,
        "position_buckets": -1,
        "share_att_key": False,
        "norm_rel_ebd": "none",
        "conv_kernel_size": 0,
        "conv_act": "tanh",
    },
    mathematics={
        **_DEBERTA.mathematics,
        "norm_rel_ebd": ("layer_norm", "none"),
        # An even window has no middle, and Hugging Face's code fails on it.
        "conv_kernel_size": (0, 1, 3, 5, 7, 9),
        "conv_act": tuple(ACTIVATIONS),
        "conv_groups": (1,),
    },
    lowest={**_DEBERTA.lowest, "position_buckets": -1, "conv_kernel_size": 0},
)

FAMILIES: dict[str, Family] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    # The same encoder with another vocabulary.
    "xlm-roberta": _ROBERTA,
    "mpnet": _MPNET,
    "modernbert": _MODERNBERT,
    "deberta": _DEBERTA,
    # v3, too.
    "deberta-v2": _DEBERTA_V2,
}

# Attributes of hub configs that do not change what an encoder computes: bookkeeping,
# output formats, task heads, text generation, other models' poolers, and their own code
# (`auto_map`, which is never run: the family's standard encoder is computed).
HARMLESS = frozenset(
    """
    _name_or_path _num_labels _attn_implementation _attn_implementation_autoset
    _attn_implementation_internal _commit_hash
    architectures auto_map custom_pipelines model_type transformers_version
    torch_dtype dtype use_bfloat16
    torchscript xla_device gradient_checkpointing use_cache
    output_attentions output_hidden_states output_past return_dict
    use_return_dict chunk_size_feed_forward
    classifier_activation classifier_dropout classifier_pooling cls_dropout
    finetuning_task loss_type task_specific_params problem_type num_labels
    id2label label2id tie_word_embeddings
    bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id unk_token_id
    decoder_start_token_id tokenizer_class prefix
    directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers
    pooler_size_per_head pooler_type
    pooler_dropout pooler_hidden_act pooler_hidden_size legacy padding_idx
    max_length min_length do_sample early_stopping num_beams num_beam_groups
    diversity_penalty temperature top_k top_p typical_p repetition_penalty
    length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences output_scores return_dict_in_generate forced_bos_token_id
    forced_eos_token_id remove_invalid_values exponential_decay_length_penalty
    suppress_tokens begin_suppress_tokens
    tf_legacy_loss use_flash_attn sentence_transformers
    do_lower_case language max_seq_length model_max_length name unsloth_fixed
    summary_activation summary_first_dropout summary_last_dropout
    summary_proj_to_labels summary_type summary_use_proj
    """.split()  # noqa: SIM905 (one name a line would fill two pages)
)
