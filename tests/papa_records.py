"""A record of PAPA as the analysis writes it, with made-up numbers."""

from pathlib import Path
from typing import Any

import numpy as np

from sweet_jax.system import checksums
from sweet_jax.system.files import write_json


def make_point(constant: int, score: float, drop: float | None, interval=None):
    return {
        "constant_heads": constant,
        "dynamic_heads": 8 - constant,
        "dynamic_by_layer": [(8 - constant) // 2, 8 - constant - (8 - constant) // 2],
        "scores": [score - 0.01, score + 0.01],
        "score": score,
        "interval": [score - 0.05, score + 0.05],
        "seed_interval": [score - 0.03, score + 0.03],
        "loss": 0.8 - score,
        "loss_interval": [0.75 - score, 0.85 - score],
        "drop": drop,
        "drop_interval": interval,
        "drop_seed_interval": interval,
    }


def make_papa_record(half=(0.01, (-0.02, 0.04)), whole=(0.1, (0.05, 0.15))):
    """Two layers of four heads; `half` and `whole` are drops with their intervals."""
    scores = np.arange(8.0).reshape(2, 4)[::-1]
    points = [
        make_point(0, 0.8, 0.0, [0.0, 0.0]),
        make_point(4, 0.79, half[0], half[1] and list(half[1])),
        make_point(8, 0.7, whole[0], whole[1] and list(whole[1])),
    ]
    curves = [
        {"ranking": "gates", "constants": kind, "points": points}
        for kind in ("averages", "uniform")
    ]
    record: dict[str, Any] = {
        "schema": 1,
        "digest": "0" * 16,
        "task": "rotten_<b>tomatoes",
        "metric": "accuracy",
        "encoder": "minilm-l6",
        "family": "bert",
        "num_layers": 2,
        "num_heads": 4,
        "length": 64,
        "layout": "sane",
        "faithful_release": False,
        "seed": 0,
        "seeds": [0, 1],
        "score_on": "test",
        "rows": {"train": 2000, "scored": 1530},
        "majority": 0.5,
        "curves": curves,
        "rankings": {
            "gates": {
                "scores": scores.tolist(),
                "ranks": [[4, 5, 6, 7], [0, 1, 2, 3]],
            }
        },
        "departures": ["papa.num_epochs is 5 (released: 15)"],
        "notes": ["a note"],
        "settings": {"length": 64, "seeds": [0, 1]},
        "seconds": {"constants": 12.5, "k0": 3.0, "k4-aa": 4.0},
        "versions": {"jax": "0.10"},
    }
    return record


def write_papa_record(folder: Path, record: dict[str, Any] | None = None) -> Path:
    write_json(folder / "papa.json", record or make_papa_record())
    checksums.record(folder, "papa.json")
    return folder
