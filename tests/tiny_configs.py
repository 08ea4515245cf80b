"""A config.json of each family: 4 layers, width 16, 32 tokens."""

from typing import Any

TINY_BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 32,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}

TINY_CONFIGS: dict[str, dict[str, Any]] = {
    "bert": TINY_BERT,
    "roberta": {
        **TINY_BERT,
        "model_type": "roberta",
        "max_position_embeddings": 34,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
    "deberta": {
        **TINY_BERT,
        "model_type": "deberta",
        "type_vocab_size": 0,
        "relative_attention": True,
        "pos_att_type": "c2p|p2c",
        "max_relative_positions": -1,
        "position_biased_input": False,
    },
    # With the convolution of v2 and the normed table of both.
    "deberta-v2": {
        **TINY_BERT,
        "model_type": "deberta-v2",
        "type_vocab_size": 0,
        "relative_attention": True,
        "pos_att_type": "p2c|c2p",
        "max_relative_positions": -1,
        "position_buckets": 6,
        "position_biased_input": False,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "conv_kernel_size": 3,
        "conv_act": "gelu",
    },
    "mpnet": {
        **{name: TINY_BERT[name] for name in TINY_BERT if name != "type_vocab_size"},
        "model_type": "mpnet",
        "max_position_embeddings": 34,
        "relative_attention_num_buckets": 32,
        "pad_token_id": 1,
    },
    # Layers 0 and 3 are global; a local one reads 2 tokens on each side.
    "modernbert": {
        "model_type": "modernbert",
        "vocab_size": 64,
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "hidden_activation": "gelu",
        "embedding_dropout": 0.1,
        "attention_dropout": 0.1,
        "mlp_dropout": 0.1,
        "max_position_embeddings": 32,
        "global_attn_every_n_layers": 3,
        "local_attention": 4,
        "global_rope_theta": 1000.0,
        "local_rope_theta": 100.0,
        "norm_eps": 1e-5,
        "initializer_range": 0.2,
        "pad_token_id": 0,
    },
}
