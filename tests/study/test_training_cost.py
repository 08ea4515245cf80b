"""What training took, beside what sweet's took."""

import json
from pathlib import Path

from study_files import (
    READ_FILES,
    aggregate,
    find,
    make_entry,
    make_study,
    write_status,
)

from sweet_jax.system import checksums


def test_training_is_compared_with_sweet(tmp_path: Path):
    record = aggregate(make_study(tmp_path / "three"), 30)
    [setting] = record["groups"][0]["settings"]
    training = find(setting["methods"], label="multi_model")["training"]
    assert training == {
        "seconds": 101.0,
        "flops": 1e13,
        "peak_memory_bytes": 1.5e9,
        "parameters": 69e6,
        "over_sweet": {
            "seconds": 1.0,
            "flops": 1.0,
            "peak_memory_bytes": 1.0,
            "parameters": 3.0,
        },
    }
    # Probes that exits start from are part of the training.
    folder = make_study(tmp_path / "probed", ("early_exit",), (0, 1))
    for seed, probe in enumerate((3.0, 5.0)):
        name = make_entry("rotten_tomatoes", 1000, "early_exit", seed)["name"]
        path = folder / "cells" / name
        results = json.loads((path / "results.json").read_text())
        results["seconds"]["probe"] = probe
        (path / "results.json").write_text(json.dumps(results))
        checksums.record(path, *READ_FILES)
    [setting] = aggregate(folder, 30)["groups"][0]["settings"]
    assert setting["methods"][0]["training"]["seconds"] == 100.5 + 4
    # One of two seeds does not know its memory: no mean of the other alone.
    folder = make_study(tmp_path / "s", ("early_exit",), (0, 1))
    name = make_entry("rotten_tomatoes", 1000, "early_exit", 1)["name"]
    write_status(folder / "cells" / name, "finished", peak_memory_bytes=None)
    [setting] = aggregate(folder, 30)["groups"][0]["settings"]
    training = setting["methods"][0]["training"]
    assert training["peak_memory_bytes"] is None
    assert set(training["over_sweet"].values()) == {None}
