"""Two processes on one machine as two hosts of a run."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweet_jax.arrays import LogitBank
from sweet_jax.runs import pipeline
from sweet_jax.settings.from_config import from_config_dict

pytestmark = pytest.mark.slow

_HOST = """
import json, pathlib, sys
from sweet_jax import devices
devices.join_hosts()
from sweet_jax.runs import pipeline
from sweet_jax.settings.from_config import from_config_dict
path, results = pipeline.run(
    from_config_dict(json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]), quiet=True
)
print(json.dumps([row["score"] for row in results["exits"]]))
"""


def start_host(
    config: dict[str, Any], workdir: Path, cache: Path, port: int, index: int
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _HOST, json.dumps(config), str(workdir)],
        env=make_environment(cache, port, index),
        stdout=subprocess.PIPE,
        text=True,
    )


def make_environment(cache: Path, port: int, index: int) -> dict[str, str]:
    return os.environ | {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": str(index),
        "SWEET_JAX_CACHE": str(cache),
        # Two devices a host: a batch of 8 is cut over four.
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }


def find_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_two_hosts_stop_after_the_same_step_and_go_on(
    tiny_encoder, tiny_task, tmp_path
):
    workdir = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "sweet_jax.main", "--multihost"),
        f"--config=configs/sweet.py:task=file,encoder={tiny_encoder}",
        f"--config.data.train_file={tiny_task / 'train.jsonl'}",
        f"--config.data.test_file={tiny_task / 'test.jsonl'}",
        "--config.data.calibration_examples=24",
        "--config.data.buckets=16",
        "--config.exits.layers=0,1",
        "--config.train.batch_size=8",
        "--config.train.num_epochs=40",
        "--config.train.checkpoint_every_steps=10000",
        "--config.evaluate.measure_costs=False",
        f"--workdir={workdir}",
    ]

    def start() -> list[subprocess.Popen[str]]:
        port = find_port()
        return [
            subprocess.Popen(
                command,
                env=make_environment(tmp_path / "cache", port, index)
                | {"PYTHONPATH": os.getcwd()},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(2)
        ]

    hosts = start()
    metrics = workdir / "metrics.jsonl"
    end = time.monotonic() + 120
    while not metrics.exists() or metrics.read_text().count("\n") < 5:
        assert time.monotonic() < end
        time.sleep(0.05)
    hosts[1].send_signal(signal.SIGTERM)
    errors = [host.communicate(timeout=60)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [75, 75], errors
    lines = {text.strip().splitlines()[-1] for text in errors}
    (line,) = lines
    stopped = re.fullmatch(r"stopped after step (\d+); the same command .*", line)
    assert stopped is not None, errors
    hosts = start()
    errors = [host.communicate(timeout=300)[1] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], errors
    assert f"goes on after step {stopped[1]}" in errors[0]


@pytest.mark.parametrize(
    ("init", "loss_tolerance", "logit_tolerance"),
    # Probes end their search where its gradient is below 1e-4, so that last bits of
    # the states, which depend on the number of devices, show in the fourth digit.
    [("random", 1e-4, 1e-5), ("probe", 1e-3, 1e-3)],
)
def test_two_hosts_train_as_one(
    tiny_config, tmp_path, monkeypatch, init, loss_tolerance, logit_tolerance
):
    tiny_config["exits"] |= {"layers": (0, 1), "init": init}
    tiny_config["data"]["buckets"] = (16,)
    port = find_port()
    hosts = [
        start_host(tiny_config, tmp_path / "two", tmp_path / "cache", port, index)
        for index in range(2)
    ]
    outputs = [host.communicate(timeout=400)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0]
    # Each knows the result; one wrote the steps, each once.
    assert outputs[0].splitlines()[-1] == outputs[1].splitlines()[-1]
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 11))

    monkeypatch.setenv("SWEET_JAX_CACHE", str(tmp_path / "cache"))
    settings = from_config_dict(tiny_config)
    pipeline.run(settings, tmp_path / "one", quiet=True)
    lines = (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    alone = [row for row in map(json.loads, lines) if "loss" in row]
    for row, other in zip(rows, alone, strict=True):
        np.testing.assert_allclose(row["loss"], other["loss"], rtol=loss_tolerance)
    banks = [LogitBank.load(tmp_path / n / "logits_test.npz") for n in ("one", "two")]
    np.testing.assert_allclose(
        banks[0].logits, banks[1].logits, rtol=0, atol=logit_tolerance
    )
