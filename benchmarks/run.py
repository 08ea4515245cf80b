"""Measures speed and memory; prints one table per part.

    python benchmarks/run.py [PART ...]

Parts: train, tradeoff, compile; constant (a layer with constant heads); forward
(compares with PyTorch, needs torch), large (24 layers, only compiled), large-tpu (the
same for a TPU, which need not exist; needs jax[tpu]), accelerator (bfloat16). Default:
the first three, and accelerator on a GPU or TPU. Run it on otherwise idle cores. Times
are medians of repeated runs in this process; FLOPs and temporary memory come from XLA's
analysis and do not vary.
"""

import os
import sys

import jax
from compilation import measure_compilation
from constant_attention import measure_constant_attention
from forward import measure_forward
from large import measure_large, measure_large_tpu
from tradeoff import measure_tradeoff
from train_step import measure_accelerator, measure_train_step

_PARTS = {
    "train": measure_train_step,
    "tradeoff": measure_tradeoff,
    "compile": measure_compilation,
    "constant": measure_constant_attention,
    "forward": measure_forward,
    "large": measure_large,
    "large-tpu": measure_large_tpu,
    "accelerator": measure_accelerator,
}


def main() -> None:
    """Prints the tables of the requested parts."""
    usual = ["train", "tradeoff", "compile"]
    if jax.default_backend() != "cpu":
        usual.append("accelerator")
    names = sys.argv[1:] or usual
    unknown = [name for name in names if name not in _PARTS]
    if unknown:
        sys.exit(f"unknown part {unknown[0]!r}: allowed are {', '.join(_PARTS)}")
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores"
    )
    for name in names:
        print()
        _PARTS[name]()


if __name__ == "__main__":
    main()
