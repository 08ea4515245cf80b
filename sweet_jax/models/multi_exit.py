"""Multi-exit models: an encoder split into segments at its exits, and sets of models.

Both classes have the same methods `start`, `run_segment` and `exit_outputs`, and
`__call__` composes them. Training, one-pass evaluation and real early exit all use
them.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sweet_jax.arrays import Batch, ExitOutput, count_texts
from sweet_jax.models.encoder import Encoder, number_texts
from sweet_jax.models.exit_heads import Exits
from sweet_jax.models.shared_tables import compute_table_starts
from sweet_jax.settings.fields import ExitSettings

_TOKENS = ("token_ids", "type_ids", "mask")


def scale_seam(carry: dict[str, Any], scale: float) -> dict[str, Any]:
    """Scales the gradient that crosses a seam; the forward pass is bit-identical.

    Scale 0 is SWEET's stop_gradient (paper section 4), scale 1 is joint training. A
    scale a between is s + a (h - s) with s = stop_gradient(h): h - s is exactly 0, so
    the value stays h, and the share a of the gradient passes. The shared arrays are
    scaled like the hidden states: otherwise shared tables would leak gradients.
    """
    if scale == 1:
        return carry

    def scale_leaf(h: jax.Array) -> jax.Array:
        if not jnp.issubdtype(h.dtype, jnp.inexact):
            return h
        s = jax.lax.stop_gradient(h)
        return s if scale == 0 else s + jnp.asarray(scale, h.dtype) * (h - s)

    return jax.tree.map(scale_leaf, carry)


class MultiExitClassifier(nn.Module):
    """One encoder with an exit after each segment.

    Attributes:
        encoder: an unbound module, at least as deep as the last exit.
        exit_layers: the layer that each exit reads, counted from 0, increasing.
        exit_numbers: the exits' numbers in the run (0.. for sweet and early_exit; one
            number for a multi_model member).
        num_classes: number of classes C.
        features: hidden size D.
        settings: pooling and dropout of the exits, and whether they learn to exit.
        shared_pooler: as in the released code (faithful_release), all exits share one
            pooler, with the family's activation, and seams do not scale shared tables.
        dtype: computation type.
        init_scale: standard deviation of fresh kernels.
    """

    encoder: Encoder
    exit_layers: tuple[int, ...]
    exit_numbers: tuple[int, ...]
    num_classes: int
    features: int
    settings: ExitSettings
    shared_pooler: bool = False
    dtype: Any = jnp.float32
    init_scale: float = 0.02

    def setup(self) -> None:
        """Makes the exits."""
        self.exits = Exits(
            numbers=self.exit_numbers,
            shared_pooler=self.shared_pooler,
            num_classes=self.num_classes,
            features=self.features,
            pooling=self.settings.pooling,
            dropout=self.settings.dropout,
            dtype=self.dtype,
            init_scale=self.init_scale,
            make_norm=self.encoder.make_final_norm,
            learn_to_exit=self.settings.learn_to_exit,
            activation=self.pooler_activation,
        )

    @property
    def pooler_activation(self) -> str:
        """The activation of the poolers, a key of `layers.ACTIVATIONS`."""
        return self.encoder.pooler_activation if self.shared_pooler else "tanh"

    @property
    def num_segments(self) -> int:
        """The number of segments, which is the number of exits E."""
        return len(self.exit_layers)

    def start(self, batch: Batch, train: bool = False) -> dict[str, Any]:
        """Returns the carry before segment 0: embeddings, mask, shared tables."""
        return self.encoder.embed(batch, train)

    def run_segment(
        self, i: int, carry: dict[str, Any], train: bool = False
    ) -> dict[str, Any]:
        """Runs the layers between exit i-1 and exit i; i is static."""
        first = self.exit_layers[i - 1] + 1 if i else 0
        return self.encoder.run_layers(carry, first, self.exit_layers[i] + 1, train)

    def exit_outputs(
        self, i: int, carry: dict[str, Any], train: bool = False
    ) -> ExitOutput:
        """Returns the output of exit i on the carry after segment i.

        On packed rows it has `count_texts(L)` entries for each row.
        """
        mask = carry["mask_BL"]
        if self.encoder.is_packed:
            numbers_S = jnp.arange(1, 1 + count_texts(mask.shape[1]))
            mask = number_texts(mask)[:, None, :] == numbers_S[None, :, None]
        return self.exits(i, carry["x_BLD"], mask, train)

    @nn.nowrap
    def split_carry(self, carry: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """Splits the carry into its per-row part and the part that all rows share."""
        return {name: carry[name] for name in ("x_BLD", "mask_BL")}, carry["shared"]

    @nn.nowrap
    def join_carry(self, rows: dict[str, Any], shared: Any) -> dict[str, Any]:
        """Joins a carry that was split; the rows may be others of the same length."""
        return {**rows, "shared": shared}

    def run_exits(self, x_BLD: jax.Array, mask_BL: jax.Array) -> list[ExitOutput]:
        """Runs every exit on the same states, to initialise only the exits."""
        numbers = range(self.num_segments)
        return [self.exits(i, x_BLD, mask_BL, False) for i in numbers]

    def __call__(
        self,
        batch: Batch,
        train: bool = False,
        seam_scale: tuple[float, ...] | None = None,
        state_scale: tuple[float, ...] | None = None,
    ) -> tuple[ExitOutput, ...]:
        """Returns the outputs of all exits.

        Args:
            batch: token ids of one static shape.
            train: whether dropout is on (needs a `dropout` key).
            seam_scale: share of the gradient that crosses seam i, between segments i
                and i+1; E-1 static numbers. None: 1 everywhere.
            state_scale: share of exit i's gradient that reaches the states it reads; E
                static numbers. None: 1 everywhere.
        """
        carry, outputs = self.start(batch, train), []
        for i in range(self.num_segments):
            carry = self.run_segment(i, carry, train)
            # The exit reads the state before the seam, so that it trains its segment.
            read = carry if state_scale is None else scale_seam(carry, state_scale[i])
            outputs.append(self.exit_outputs(i, read, train))
            if seam_scale is not None and i < len(seam_scale):
                shared = carry["shared"]
                carry = scale_seam(carry, seam_scale[i])
                if self.shared_pooler:
                    # The released DeBERTa passes its table to every segment again, so
                    # all exits train it despite the seams.
                    carry = {**carry, "shared": shared}
        return tuple(outputs)


class MultiModelSet(nn.Module):
    """Separate models, one per exit, with the methods of one multi-exit model.

    Every segment starts from the tokens again, so a cascade pays for each model it
    runs. The set is used for evaluation and serving. Members are trained alone, outside
    of it, because Linen folds a parent's name into the dropout keys of its children.
    """

    member: tuple[MultiExitClassifier, ...]

    @property
    def num_segments(self) -> int:
        """The number of members."""
        return len(self.member)

    @property
    def pooler_activation(self) -> str:
        """The activation of the members' poolers."""
        return self.member[0].pooler_activation

    def start(self, batch: Batch, train: bool = False) -> dict[str, Any]:
        """Returns the carry before member 0: the batch itself."""
        return {"batch": batch}

    def run_segment(
        self, i: int, carry: dict[str, Any], train: bool = False
    ) -> dict[str, Any]:
        """Runs the whole encoder of member i on the batch."""
        batch = carry["batch"]
        state = self.member[i].start(batch, train)
        return {"batch": batch, **self.member[i].run_segment(0, state, train)}

    def exit_outputs(
        self, i: int, carry: dict[str, Any], train: bool = False
    ) -> ExitOutput:
        """Returns the output of member i's exit."""
        return self.member[i].exit_outputs(0, carry, train)

    @nn.nowrap
    def split_carry(self, carry: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """Returns the tokens, from which the next member starts; nothing is shared."""
        return {name: getattr(carry["batch"], name) for name in _TOKENS}, ()

    @nn.nowrap
    def join_carry(self, rows: dict[str, Any], shared: Any) -> dict[str, Any]:
        """Returns the carry: the tokens of the rows, without labels."""
        empty_B = jnp.zeros(rows["mask"].shape[0], jnp.int32)
        weights_B = empty_B.astype(jnp.float32)
        batch = Batch(**rows, labels=empty_B, weights=weights_B, row_ids=empty_B)
        return {"batch": batch}

    def __call__(self, batch: Batch, train: bool = False) -> tuple[ExitOutput, ...]:
        """Returns the outputs of all members."""
        carry, outputs = self.start(batch, train), []
        for i in range(self.num_segments):
            carry = self.run_segment(i, carry, train)
            outputs.append(self.exit_outputs(i, carry, train))
        return tuple(outputs)


def split_model(
    model: MultiExitClassifier,
    member_exits: Sequence[Sequence[int]],
    separate_tables: bool,
) -> tuple[MultiExitClassifier, ...]:
    """Returns one model per member, each as deep as its last exit.

    Args:
        model: a model with every exit of the run.
        member_exits: the numbers of the exits that each member owns.
        separate_tables: whether each segment of a member has its own copy of the
            shared tables.
    """

    def cut(exits: Sequence[int]) -> MultiExitClassifier:
        layers = tuple(model.exit_layers[i] for i in exits)
        encoder = model.encoder.clone(
            num_layers=layers[-1] + 1,
            table_starts=compute_table_starts(layers) if separate_tables else (0,),
        )
        return model.clone(
            encoder=encoder, exit_layers=layers, exit_numbers=tuple(exits)
        )

    return tuple(cut(exits) for exits in member_exits)


def join_models(
    models: Sequence[MultiExitClassifier],
) -> MultiExitClassifier | MultiModelSet:
    """Returns the model for evaluation and serving; several become a set."""
    return models[0] if len(models) == 1 else MultiModelSet(tuple(models))


def pack_model(model: nn.Module) -> MultiExitClassifier | MultiModelSet | None:
    """Returns the same model for packed batches; None if there is no such model."""
    if isinstance(model, MultiModelSet):
        members = [pack_model(member) for member in model.member]
        packed = tuple(m for m in members if isinstance(m, MultiExitClassifier))
        return model.clone(member=packed) if len(packed) == len(members) else None
    if isinstance(model, MultiExitClassifier) and model.encoder.can_pack:
        return model.clone(encoder=model.encoder.clone(is_packed=True))
    return None


def find_segment(path: str, exit_layers: Sequence[int]) -> int:
    """Returns the segment that owns the parameter at `path` of a multi-exit model.

    Segment i owns exit i and its copy of the shared tables; segment 0 also owns the
    embeddings and a table that all segments share. A pooler shared by all exits
    (faithful_release) has no owner and counts as segment 0.
    """
    if match := re.match(r"exits/exit_(\d+)/", path):
        return int(match[1])
    if match := re.match(r"encoder/shared_(\d+)/", path):
        return int(match[1])
    if match := re.match(r"encoder/layer_(\d+)/", path):
        return next(i for i, last in enumerate(exit_layers) if int(match[1]) <= last)
    return 0
