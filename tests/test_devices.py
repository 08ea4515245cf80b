"""What a person's shell tells jax for other work changes no run."""

import jax
import pytest

from sweet_jax.devices import configure_jax


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_enable_x64", True),
        ("jax_default_prng_impl", "rbg"),
        ("jax_disable_jit", True),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_transfer_guard", "disallow"),
    ],
)
def test_settings_of_jax_that_change_results_are_put_back(name, value, monkeypatch):
    before = getattr(jax.config, name)
    cache = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    try:
        jax.config.update(name, value)
        configure_jax("highest")
        assert getattr(jax.config, name) != value
    finally:
        jax.config.update(name, before)
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_default_matmul_precision", None)


def test_a_platform_that_is_not_there_is_one_line(monkeypatch):
    def fail() -> list[jax.Device]:
        raise AssertionError  # As jax does for cuda without its plugin.

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    with pytest.raises(ValueError, match=r"unset it, or install jax for that device"):
        configure_jax("highest")
