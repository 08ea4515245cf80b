"""Exits: a pooler and a classifier on the output of one layer.

On a pre-norm encoder, every exit also has its own copy of the checkpoint's final norm
before the pooler: a shared norm would pass what one exit learns to the others.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from sweet_jax.arrays import Array, ExitOutput
from sweet_jax.models.layers import ACTIVATIONS


def pool_states(
    x_BLD: Float[Array, "B L D"], mask_BL: Int[Array, "B L"], pooling: str
) -> Float[Array, "B D"]:
    """Returns the CLS state, or the mean state over real tokens, in float32.

    A row without real tokens (a padding row) gives zeros, not NaN.
    """
    if pooling == "cls":
        return x_BLD[:, 0].astype(jnp.float32)
    # Summed in float32: a bfloat16 sum over hundreds of tokens would lose terms.
    states_BLD = jnp.where(mask_BL[:, :, None] > 0, x_BLD, 0).astype(jnp.float32)
    count_B = jnp.maximum(mask_BL.sum(axis=1), 1)
    return states_BLD.sum(axis=1) / count_B[:, None]


def pool_texts(
    x_BLD: Float[Array, "B L D"], tokens_BSL: Bool[Array, "B S L"], pooling: str
) -> Float[Array, "N D"]:
    """Returns the CLS or mean state of each text of packed rows, N = B S, in float32.

    Args:
        x_BLD: the states.
        tokens_BSL: True at the tokens of text s of row b; a text without tokens (an
            unused place) has a state without meaning.
        pooling: `cls` or `mean`.
    """
    if pooling == "cls":
        first_BS = tokens_BSL.argmax(axis=2)
        pooled_BSD = jnp.take_along_axis(x_BLD, first_BS[:, :, None], axis=1)
        pooled_BSD = pooled_BSD.astype(jnp.float32)
    else:
        sums_BSD = jnp.einsum(
            "BSL,BLD->BSD",
            tokens_BSL.astype(x_BLD.dtype),
            x_BLD,
            precision=jax.lax.Precision.HIGHEST,  # A sum, not a product.
            preferred_element_type=jnp.float32,
        )
        count_BS = jnp.maximum(tokens_BSL.sum(axis=2), 1)
        pooled_BSD = sums_BSD / count_BS[:, :, None]
    return pooled_BSD.reshape(-1, x_BLD.shape[-1])


class Exit(nn.Module):
    """One exit: z = W drop(tanh(P pool(norm(x)))) (paper section 3).

    The released code shares one pooler among all exits, which couples their weights,
    and its DeBERTa has GELU instead of tanh; here every exit owns its pooler unless one
    is passed to `__call__`.

    Learning to exit adds u = sigmoid(v . drop(tanh(P pool(norm(x))))), which predicts
    whether argmax z is correct. It reads the same state as the classifier, with the
    same dropout, so that it judges the classifier's actual prediction.

    Attributes:
        num_classes: number of classes C.
        features: width D of the pooler.
        pooling: `mean` or `cls`.
        dropout: rate before the classifier.
        owns_pooler: False under faithful_release only.
        dtype: computation type of the pooler; logits are always float32.
        init_scale: standard deviation of fresh kernels.
        make_norm: returns the encoder's final norm, which the exit then owns, or None.
        learn_to_exit: whether there is a learning-to-exit head.
        activation: the pooler's activation, a key of `layers.ACTIVATIONS`.
    """

    num_classes: int
    features: int
    pooling: str
    dropout: float
    owns_pooler: bool
    dtype: Any
    init_scale: float
    make_norm: Callable[[], nn.Module | None]
    learn_to_exit: bool
    activation: str

    def setup(self) -> None:
        """Makes the norm, the pooler, the dropout, the classifier and the LTE head."""
        given = self.pooling in ("mean", "cls") and self.dropout >= 0
        assert given, "settings are resolved before a model is made of them"
        init = nn.initializers.normal(self.init_scale)
        self.norm = self.make_norm()
        if self.owns_pooler:
            self.pooler = nn.Dense(self.features, dtype=self.dtype, kernel_init=init)
        self.drop = nn.Dropout(self.dropout)
        # float32 logits: softmax scores near 1 decide at which exit examples leave.
        self.classifier = nn.Dense(
            self.num_classes, dtype=jnp.float32, kernel_init=init
        )
        if self.learn_to_exit:
            self.lte = nn.Dense(1, dtype=jnp.float32, kernel_init=init)

    def __call__(
        self,
        x_BLD: Float[Array, "B L D"],
        mask: Int[Array, "B L"] | Bool[Array, "B S L"],
        train: bool,
        shared_pooler: nn.Module | None = None,
    ) -> ExitOutput:
        """Returns the exit's logits, its LTE score, and in training what it pooled.

        Args:
            x_BLD: the states.
            mask: not 0 at real tokens; of packed rows, see `pool_texts`.
            train: whether dropout is on.
            shared_pooler: a pooler instead of the exit's own.
        """
        pooler = self.pooler if shared_pooler is None else shared_pooler
        if self.norm is not None:
            x_BLD = self.norm(x_BLD)
        pool = pool_texts if mask.ndim == 3 else pool_states
        pooled_BD = pooler(pool(x_BLD, mask, self.pooling))
        pooled_BD = ACTIVATIONS[self.activation](pooled_BD)
        kept_BD = pooled_BD if train else None
        pooled_BD = self.drop(pooled_BD, deterministic=not train)
        logits_BC = self.classifier(pooled_BD)
        lte_B = nn.sigmoid(self.lte(pooled_BD)[:, 0]) if self.learn_to_exit else None
        return ExitOutput(logits_BC, lte_B, kept_BD)


class Exits(nn.Module):
    """The exits of one model, at paths `exit_<number>`.

    Attributes:
        numbers: the exits' numbers in the run; a multi_model member has one of them,
            under the same name, so that equal seeds give equal initial weights.
        shared_pooler: one pooler for all exits, as in the released code.
        learn_to_exit: whether each exit has a learning-to-exit head.
        activation: the poolers' activation.
    """

    numbers: tuple[int, ...]
    shared_pooler: bool
    num_classes: int
    features: int
    pooling: str
    dropout: float
    dtype: Any
    init_scale: float
    make_norm: Callable[[], nn.Module | None]
    learn_to_exit: bool
    activation: str

    def setup(self) -> None:
        """Makes the exits and, if it is shared, their pooler."""
        if self.shared_pooler:
            self.pooler = nn.Dense(
                self.features,
                dtype=self.dtype,
                kernel_init=nn.initializers.normal(self.init_scale),
            )
        self.exit = {
            str(number): Exit(
                num_classes=self.num_classes,
                features=self.features,
                pooling=self.pooling,
                dropout=self.dropout,
                owns_pooler=not self.shared_pooler,
                dtype=self.dtype,
                init_scale=self.init_scale,
                make_norm=self.make_norm,
                learn_to_exit=self.learn_to_exit,
                activation=self.activation,
            )
            for number in self.numbers
        }

    def __call__(
        self,
        index: int,
        x_BLD: Float[Array, "B L D"],
        mask: Int[Array, "B L"] | Bool[Array, "B S L"],
        train: bool,
    ) -> ExitOutput:
        """Returns the output of the exit at position `index` of `numbers`."""
        pooler = self.pooler if self.shared_pooler else None
        return self.exit[str(self.numbers[index])](x_BLD, mask, train, pooler)


def pooler_paths(numbers: Sequence[int], shared_pooler: bool) -> tuple[str, ...]:
    """Returns the paths of all poolers, to initialise them from a checkpoint."""
    if shared_pooler:
        return ("exits/pooler",)
    return tuple(f"exits/exit_{number}/pooler" for number in numbers)


def norm_paths(numbers: Sequence[int]) -> tuple[str, ...]:
    """Returns the paths of the exits' norms, to initialise them from a checkpoint."""
    return tuple(f"exits/exit_{number}/norm" for number in numbers)
