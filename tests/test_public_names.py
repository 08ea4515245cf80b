"""The public names: all there, and none loaded before it is asked for."""

import subprocess
import sys

import pytest

import sweet_jax


@pytest.mark.parametrize("name", sweet_jax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(sweet_jax, name)
    assert name in dir(sweet_jax)


def test_importing_the_package_loads_no_library():
    heavy = ["jax", "flax", "pandas", "sklearn", "transformers", "datasets", "numpy"]
    code = (
        "import sys, sweet_jax\n"
        f"found = [name for name in {heavy} if name in sys.modules]\n"
        "assert not found, found\n"
        "sweet_jax.train, sweet_jax.Run, sweet_jax.Settings\n"
        "assert 'jax' not in sys.modules and 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_loading_a_classifier_loads_nothing_for_training_or_reports():
    heavy = ["scipy", "sklearn", "pandas", "matplotlib", "optax", "datasets"]
    code = (
        "import sys, sweet_jax\n"
        "sweet_jax.load\n"
        f"found = [name for name in {heavy} if name in sys.modules]\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
