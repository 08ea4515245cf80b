"""What a person's shell tells jax for other work changes no run."""

import jax
import jax.numpy as jnp
import pytest

from sweet_jax.devices import (
    Programs,
    _choose_options,
    compile_together,
    configure_jax,
    use_cache,
)


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


def test_functions_that_compile_together_share_out_the_seconds_and_keep_programs():
    double, negate = (Programs(jax.jit(f)) for f in (lambda x: 2 * x, lambda x: -x))
    x, y = jnp.ones((1, 3)), jnp.ones((2, 3))
    work = {(double, (1, 3)): (x,), (negate, (1, 3)): (x,), (negate, (2, 3)): (y,)}
    seconds = compile_together(work)
    assert double.by_shape[1, 3].call(x).tolist() == [[2, 2, 2]]
    assert negate.by_shape[1, 3].call(x).tolist() == [[-1, -1, -1]]
    assert negate.by_shape[2, 3].call(y).shape == (2, 3)
    assert seconds > 0
    assert double.seconds == pytest.approx(seconds / 3)
    assert negate.seconds == pytest.approx(2 * seconds / 3)

    kept, before = dict(negate.by_shape), negate.seconds
    assert compile_together(work) == 0, "nothing is compiled twice"
    assert negate.by_shape == kept
    assert negate.seconds == before


@pytest.mark.parametrize(
    ("own", "used", "threshold"),
    [(None, "ours/xla", 0), ("own", "own", 2.5), ("", "", 2.5)],
)
def test_a_cache_that_the_program_has_set_up_stays_as_it_is(
    own, used, threshold, tmp_path, monkeypatch
):
    monkeypatch.setenv("SWEET_JAX_CACHE", str(tmp_path / "ours"))
    directory = "jax_compilation_cache_dir"
    seconds = "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in (directory, seconds)}
    try:
        jax.config.update(seconds, 2.5)
        jax.config.update(directory, own and str(tmp_path / own))
        use_cache()
        assert getattr(jax.config, directory) == (used and str(tmp_path / used))
        assert getattr(jax.config, seconds) == threshold
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_no_cache_is_used_where_it_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SWEET_JAX_CACHE", str(tmp_path / "file"))
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        use_cache()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_level_in_xla_flags_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    assert _choose_options() is None
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    assert _choose_options() == {"xla_backend_optimization_level": 2}
