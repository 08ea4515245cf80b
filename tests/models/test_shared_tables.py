"""Tables that layers share, spread for a length that is not known yet."""

import jax
import numpy as np
import pytest
from jax import export
from tiny_configs import TINY_CONFIGS

from sweet_jax.huggingface.config import make_encoder, parse_config


@pytest.mark.parametrize(
    "family", ["mpnet", pytest.param("deberta-v2", marks=pytest.mark.slow)]
)
def test_a_table_for_any_length_is_that_of_each_length(family):
    config = parse_config(TINY_CONFIGS[family])
    tables_class = type(make_encoder(config, 1, np.float32)).tables_class
    assert tables_class is not None
    module = tables_class(config)
    params = jax.jit(module.init, static_argnums=1)(jax.random.key(0), 2)
    (length,) = export.symbolic_shape("length", constraints=["length <= 32"])
    program = export.export(
        jax.jit(lambda tokens: module.apply(params, tokens.shape[0]))
    )(jax.ShapeDtypeStruct((length,), np.int32))
    for tokens in (1, 7):
        got = program.call(np.zeros(tokens, np.int32))
        want = jax.jit(module.apply, static_argnums=1)(params, tokens)
        if family != "mpnet":
            # More rows than this length needs, at other places.
            got, want = (rows[places] for rows, places in (got, want))
        # Not to the bit: a norm of other rows rounds otherwise.
        np.testing.assert_allclose(got, want, atol=1e-6)
