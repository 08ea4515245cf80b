"""The memory of a prediction job does not grow with its input."""

import re
import subprocess
import sys

import pytest


@pytest.mark.long
def test_ten_times_the_rows_take_the_same_memory():
    printed = subprocess.run(
        [sys.executable, "benchmarks/predict_memory.py", "10000", "100000"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    ratio = re.search(r"peak of the first: ([0-9.]+)", printed)
    assert ratio is not None, printed
    assert float(ratio[1]) < 1.2, printed
