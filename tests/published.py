"""What the config.json of published encoders says, but for bookkeeping."""

from typing import Any


def _make(family: str, layers: int, width: int, **others: Any) -> dict[str, Any]:
    return {
        "model_type": family,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
        **others,
    }


_BERT = {
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "gradient_checkpointing": False,
    "use_cache": True,
}
_ROBERTA = {
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_MPNET = {
    "vocab_size": 30527,
    "max_position_embeddings": 514,
    "layer_norm_eps": 1e-5,
    "relative_attention_num_buckets": 32,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_DEBERTA = {
    "vocab_size": 50265,
    "max_position_embeddings": 512,
    "relative_attention": True,
    "pos_att_type": "c2p|p2c",
    "layer_norm_eps": 1e-7,
    "padding_idx": 0,
    "max_relative_positions": -1,
    "position_biased_input": False,
    "type_vocab_size": 0,
}
_DEBERTA_V3 = {
    **{name: value for name, value in _DEBERTA.items() if name != "padding_idx"},
    "vocab_size": 128100,
    "pos_att_type": "p2c|c2p",
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
}
_DEBERTA_V2 = {
    **_DEBERTA_V3,
    "conv_kernel_size": 3,
    "conv_act": "gelu",
    "attention_head_size": 64,
}

# Stray names and all: nothing reads the last five.
_MODERNBERT = {
    "vocab_size": 50368,
    "max_position_embeddings": 8192,
    "hidden_activation": "gelu",
    "norm_eps": 1e-5,
    "global_attn_every_n_layers": 3,
    "local_attention": 128,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "attention_dropout": 0.0,
    "embedding_dropout": 0.0,
    "mlp_dropout": 0.0,
    "initializer_range": 0.02,
    "pad_token_id": 50283,
    "bos_token_id": 50281,
    "cls_token_id": 50281,
    "eos_token_id": 50282,
    "sep_token_id": 50282,
    "layer_norm_eps": 1e-5,
    "position_embedding_type": "absolute",
    "initializer_cutoff_factor": 2.0,
    "classifier_pooling": "mean",
    "decoder_bias": True,
}


def _make_modernbert(layers: int, width: int, inner: int) -> dict[str, Any]:
    return {
        "model_type": "modernbert",
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": width // 64,
        "intermediate_size": inner,
        **_MODERNBERT,
    }


# name -> (attributes, parameters with the pooler, if there is one)
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "bert-base-uncased": (_make("bert", 12, 768, **_BERT), 109_482_240),
    "bert-large-uncased": (_make("bert", 24, 1024, **_BERT), 335_141_888),
    "roberta-base": (_make("roberta", 12, 768, **_ROBERTA), 124_645_632),
    "roberta-large": (_make("roberta", 24, 1024, **_ROBERTA), 355_359_744),
    "xlm-roberta-base": (
        _make("xlm-roberta", 12, 768, **{**_ROBERTA, "vocab_size": 250002}),
        278_043_648,
    ),
    "all-mpnet-base-v2": (_make("mpnet", 12, 768, **_MPNET), 109_486_464),
    "ModernBERT-base": (_make_modernbert(22, 768, 1152), 149_014_272),
    "ModernBERT-large": (_make_modernbert(28, 1024, 2624), 394_781_696),
    "deberta-base": (_make("deberta", 12, 768, **_DEBERTA), 138_601_728),
    "deberta-large": (_make("deberta", 24, 1024, **_DEBERTA), 405_163_008),
    "deberta-v3-small": (_make("deberta-v2", 6, 768, **_DEBERTA_V3), 141_304_320),
    "deberta-v3-base": (_make("deberta-v2", 12, 768, **_DEBERTA_V3), 183_831_552),
    "deberta-v3-large": (_make("deberta-v2", 24, 1024, **_DEBERTA_V3), 434_012_160),
    "deberta-v2-xlarge": (_make("deberta-v2", 24, 1536, **_DEBERTA_V2), 884_593_152),
}
