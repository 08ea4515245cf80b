"""transformers and its tokenizers, imported without its advice to install PyTorch."""

import os

_VARIABLE = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
_before = os.environ.get(_VARIABLE)
os.environ[_VARIABLE] = "1"
try:
    import transformers
    from transformers import (
        DebertaTokenizer,
        DebertaV2Tokenizer,
        PreTrainedTokenizerFast,
    )
finally:
    # Later advice is shown or hidden as the user's program wants it.
    if _before is None:
        del os.environ[_VARIABLE]
    else:
        os.environ[_VARIABLE] = _before

__all__ = [
    "DebertaTokenizer",
    "DebertaV2Tokenizer",
    "PreTrainedTokenizerFast",
    "transformers",
]
