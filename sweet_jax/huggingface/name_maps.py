"""The name map of each family: a table with one row per tensor.

Old names, and tensors that are not part of an encoder, are listed too, so that no
tensor is ignored by accident.
"""

from sweet_jax.huggingface.rules import NameMap, Rule, make_dense_rules, make_norm_rules

_LAYER = "encoder.layer.{layer}"
_POSITIONS = Rule(
    "embeddings.position_embeddings.weight", "embeddings/position/embedding"
)
_WORDS = Rule("embeddings.word_embeddings.weight", "embeddings/word/embedding")
_TYPES = Rule("embeddings.token_type_embeddings.weight", "embeddings/type/embedding")
_EMBEDDINGS_NORM = make_norm_rules("embeddings.LayerNorm", "embeddings/norm")
_POOLER = make_dense_rules("pooler.dense", "pooler")
_FEED_FORWARD = (
    *make_dense_rules(f"{_LAYER}.intermediate.dense", "layer_{layer}/feed_forward/up"),
    *make_dense_rules(f"{_LAYER}.output.dense", "layer_{layer}/feed_forward/down"),
    *make_norm_rules(f"{_LAYER}.output.LayerNorm", "layer_{layer}/feed_forward/norm"),
)
# TensorFlow's names of scale and bias, in early checkpoints.
_OLD_NORMS = (
    (r"LayerNorm\.gamma$", "LayerNorm.weight"),
    (r"LayerNorm\.beta$", "LayerNorm.bias"),
)
# Heads that classify sentences and tokens; heads that find spans.
_TASK_HEADS = (r"classifier\..*", r"qa_outputs\..*")
_ATTENTION_OUTPUT = (
    *make_dense_rules(
        f"{_LAYER}.attention.output.dense", "layer_{layer}/attention/output"
    ),
    *make_norm_rules(
        f"{_LAYER}.attention.output.LayerNorm", "layer_{layer}/attention/norm"
    ),
)
_BERT_ATTENTION = (
    *make_dense_rules(
        f"{_LAYER}.attention.self.query", "layer_{layer}/attention/query"
    ),
    *make_dense_rules(f"{_LAYER}.attention.self.key", "layer_{layer}/attention/key"),
    *make_dense_rules(
        f"{_LAYER}.attention.self.value", "layer_{layer}/attention/value"
    ),
    *_ATTENTION_OUTPUT,
)

_BERT_RULES = (
    _WORDS,
    _POSITIONS,
    _TYPES,
    *_EMBEDDINGS_NORM,
    *_BERT_ATTENTION,
    *_FEED_FORWARD,
    *_POOLER,
)
_ROBERTA = NameMap(
    rules=_BERT_RULES,
    renames=((r"^roberta\.", ""), *_OLD_NORMS),
    # `lm_head`: the head for masked words.
    ignored=(r"lm_head\..*", *_TASK_HEADS),
)

_MPNET = NameMap(
    rules=(
        _WORDS,
        _POSITIONS,
        *_EMBEDDINGS_NORM,
        *make_dense_rules(
            f"{_LAYER}.attention.attn.q", "layer_{layer}/attention/query"
        ),
        *make_dense_rules(f"{_LAYER}.attention.attn.k", "layer_{layer}/attention/key"),
        *make_dense_rules(
            f"{_LAYER}.attention.attn.v", "layer_{layer}/attention/value"
        ),
        *make_dense_rules(
            f"{_LAYER}.attention.attn.o", "layer_{layer}/attention/output"
        ),
        *make_norm_rules(
            f"{_LAYER}.attention.LayerNorm", "layer_{layer}/attention/norm"
        ),
        Rule(
            "encoder.relative_attention_bias.weight", "shared_0/position_bias/embedding"
        ),
        *_FEED_FORWARD,
        *_POOLER,
    ),
    renames=((r"^mpnet\.", ""), *_OLD_NORMS),
    ignored=(r"lm_head\..*", *_TASK_HEADS),
)

_MODERNBERT_LAYER = "layers.{layer}"
_MODERNBERT = NameMap(
    # No biases: a dense map is its kernel, a norm its scale.
    rules=(
        Rule("embeddings.tok_embeddings.weight", "embeddings/word/embedding"),
        Rule("embeddings.norm.weight", "embeddings/norm/scale"),
        Rule(
            f"{_MODERNBERT_LAYER}.attn_norm.weight",
            "layer_{layer}/attention/norm/scale",
        ),
        Rule(
            f"{_MODERNBERT_LAYER}.attn.Wqkv.weight",
            "layer_{layer}/attention/qkv/kernel",
            "transpose",
        ),
        Rule(
            f"{_MODERNBERT_LAYER}.attn.Wo.weight",
            "layer_{layer}/attention/output/kernel",
            "transpose",
        ),
        Rule(
            f"{_MODERNBERT_LAYER}.mlp_norm.weight",
            "layer_{layer}/feed_forward/norm/scale",
        ),
        Rule(
            f"{_MODERNBERT_LAYER}.mlp.Wi.weight",
            "layer_{layer}/feed_forward/up/kernel",
            "transpose",
        ),
        Rule(
            f"{_MODERNBERT_LAYER}.mlp.Wo.weight",
            "layer_{layer}/feed_forward/down/kernel",
            "transpose",
        ),
        Rule("final_norm.weight", "final_norm/scale"),
    ),
    renames=((r"^model\.", ""),),
    # `head` comes before both heads: masked words (`decoder`) and classes.
    ignored=(r"head\..*", r"decoder\..*", *_TASK_HEADS),
    buffers=(r".*rotary_emb\.(original_)?inv_freq",),
)

_PACKED_ATTENTION = (
    Rule(
        f"{_LAYER}.attention.self.in_proj.weight",
        "layer_{layer}/attention/query_key_value/kernel",
        "transpose",
    ),
    Rule(f"{_LAYER}.attention.self.q_bias", "layer_{layer}/attention/query_bias"),
    Rule(f"{_LAYER}.attention.self.v_bias", "layer_{layer}/attention/value_bias"),
    *make_dense_rules(
        f"{_LAYER}.attention.self.pos_q_proj", "layer_{layer}/attention/position_query"
    ),
    Rule(
        f"{_LAYER}.attention.self.pos_proj.weight",
        "layer_{layer}/attention/position_key/kernel",
        "transpose",
    ),
    *_ATTENTION_OUTPUT,
)
_SEPARATE_ATTENTION = (
    *make_dense_rules(
        f"{_LAYER}.attention.self.query_proj", "layer_{layer}/attention/query"
    ),
    *make_dense_rules(
        f"{_LAYER}.attention.self.key_proj", "layer_{layer}/attention/key"
    ),
    *make_dense_rules(
        f"{_LAYER}.attention.self.value_proj", "layer_{layer}/attention/value"
    ),
    *make_dense_rules(
        f"{_LAYER}.attention.self.pos_query_proj",
        "layer_{layer}/attention/position_query",
    ),
    *make_dense_rules(
        f"{_LAYER}.attention.self.pos_key_proj", "layer_{layer}/attention/position_key"
    ),
    *_ATTENTION_OUTPUT,
)
_CONVOLUTION = (
    Rule("encoder.conv.conv.weight", "layer_0/convolution/conv/kernel", "transpose"),
    Rule("encoder.conv.conv.bias", "layer_0/convolution/conv/bias"),
    *make_norm_rules("encoder.conv.LayerNorm", "layer_0/convolution/norm"),
)


def _make_deberta(*further: Rule) -> NameMap:
    """Returns the table of a DeBERTa; the rows of its attention are passed."""
    return NameMap(
        rules=(
            _WORDS,
            _POSITIONS,
            _TYPES,
            *_EMBEDDINGS_NORM,
            Rule("encoder.rel_embeddings.weight", "shared_0/distance/embedding"),
            *further,
            *_FEED_FORWARD,
        ),
        renames=((r"^deberta\.", ""), *_OLD_NORMS),
        ignored=(
            # Published files have it even if the config says that it is not used.
            r"embeddings\.position_embeddings\.weight",
            # The heads for masked and replaced words.
            r"(cls|lm_predictions|mask_predictions)\..*",
            # It belongs to task heads, whose activation differs from that of our exits.
            r"pooler\.dense\..*",
            *_TASK_HEADS,
        ),
    )


NAME_MAPS: dict[str, NameMap] = {
    "bert": NameMap(
        rules=_BERT_RULES,
        renames=((r"^bert\.", ""), *_OLD_NORMS),
        # `cls`: the heads for masked words and the next sentence.
        ignored=(r"cls\..*", *_TASK_HEADS),
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "mpnet": _MPNET,
    "modernbert": _MODERNBERT,
    "deberta": _make_deberta(*_PACKED_ATTENTION),
    "deberta-v2": _make_deberta(
        *_SEPARATE_ATTENTION,
        *make_norm_rules("encoder.LayerNorm", "shared_0/norm"),
        *_CONVOLUTION,
    ),
}
