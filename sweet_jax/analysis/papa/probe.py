"""The probe for sentences (section 6): a light classifier on all hidden states."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Int

from sweet_jax.arrays import Array
from sweet_jax.models.layers import Dropout, make_dense

# Standard deviation of fresh kernels.
_INIT_STD = 0.02


class SentenceProbe(nn.Module):
    """g_j = sum_a w[j,a] m_a H_j[a]; u = tanh(D [g_0; ...; g_n] + b); W drop(u) + c.

    The sum over slots is neither divided by the number of tokens nor softmaxed.

    Attributes:
        num_classes: number of classes C.
        dropout: rate before the classifier.
    """

    num_classes: int
    dropout: float

    @nn.compact
    def __call__(
        self,
        states_BJLD: Float[Array, "B J L D"],
        mask_BL: Int[Array, "B L"],
        train: bool,
    ) -> Float[Array, "B C"]:
        """Returns the logits; J counts the embeddings and all layers."""
        rows, num_states, length, features = states_BJLD.shape
        weights_JL = self.param(
            "slot_weights", nn.initializers.constant(1 / length), (num_states, length)
        )
        weights_BJL = jnp.where(mask_BL[:, None, :] > 0, weights_JL, 0.0)
        g_BJD = jnp.einsum("BJL,BJLD->BJD", weights_BJL, states_BJLD)
        dense = make_dense(features, _INIT_STD, jnp.float32, "dense")
        u_BD = jnp.tanh(dense(g_BJD.reshape(rows, num_states * features)))
        u_BD = Dropout(self.dropout, name="dropout")(u_BD, train)
        return make_dense(self.num_classes, _INIT_STD, jnp.float32, "classifier")(u_BD)
