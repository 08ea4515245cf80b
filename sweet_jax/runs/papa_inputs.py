"""Prepares and checks the inputs of PAPA: encoder, rows in their layout, probe.

All errors in the inputs are found here, before the work directory is made.
"""

import dataclasses
import logging
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from sweet_jax.analysis.papa.frozen import Frozen
from sweet_jax.analysis.papa.heads import count_constant
from sweet_jax.analysis.papa.layout import Layout, SlotRows, lay_out
from sweet_jax.analysis.papa.probe import SentenceProbe
from sweet_jax.data.examples import RawTask
from sweet_jax.data.sources import load_task
from sweet_jax.data.splits import Splits, make_splits
from sweet_jax.data.tokenize import check_vocabulary, load_tokenizer
from sweet_jax.evaluation.metrics import check_metric
from sweet_jax.huggingface.config import (
    load_config,
    make_encoder,
    read_classifier_dropout,
)
from sweet_jax.huggingface.find_encoder import find_encoder
from sweet_jax.huggingface.safetensors import load_encoder
from sweet_jax.models.encoder import EncoderConfig
from sweet_jax.models.post_norm import PostNormConfig
from sweet_jax.models.roberta import close_gaps
from sweet_jax.runs.inputs import digest_examples
from sweet_jax.settings.fields import AUTO, PapaSettings, Settings
from sweet_jax.settings.rules import SettingsError

logger = logging.getLogger(__name__)

# The families that the released code has.
_RELEASED_FAMILIES = ("bert", "roberta", "deberta")


@dataclasses.dataclass(frozen=True, eq=False)
class PapaInputs:
    """The checked inputs of the analysis.

    Attributes:
        settings: settings of encoder and rows.
        papa: settings of the analysis, with `constant_heads` and `dropout` filled in.
        config: config of the encoder.
        frozen: the encoder with its weights.
        probe: the probe.
        raw: the task as published.
        splits: the rows of the task.
        train: training rows in their slots.
        scored: the rows that probes are scored on.
        encoder_digest: of the weights.
        rows_digest: of the training rows.
    """

    settings: Settings
    papa: PapaSettings
    config: EncoderConfig
    frozen: Frozen
    probe: SentenceProbe
    raw: RawTask
    splits: Splits
    train: SlotRows
    scored: SlotRows
    encoder_digest: str
    rows_digest: str

    @property
    def layout(self) -> Layout:
        """The layout of the rows."""
        return Layout(self.papa.length, self.papa.faithful_release)

    @property
    def identity(self) -> dict[str, str]:
        """What constants depend on, as in `constants_file.FIELDS`."""
        return {
            "encoder": self.encoder_digest,
            "layout": self.layout.name,
            "length": str(self.papa.length),
            "rows": self.rows_digest,
        }

    @property
    def num_classes(self) -> int:
        """The number of classes C."""
        return len(self.raw.label_names)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes about the rows for readers of the results."""
        cuts = [
            f"{rows.cut_rows:,} of {rows.num_rows:,} {name} rows were cut to fit"
            f" {self.papa.length} slots"
            for name, rows in (("training", self.train), ("scored", self.scored))
            if rows.cut_rows
        ]
        return (*self.splits.notes, *cuts)


def prepare_papa(settings: Settings, papa: PapaSettings) -> PapaInputs:
    """Finds, reads and checks all inputs of the analysis.

    Raises:
        ValueError: an input is wrong; the message is one line.
    """
    folder = find_encoder(settings.encoder)
    config = load_config(folder, settings.encoder.ignore_attributes)
    _check_family(settings, papa, config)
    papa = _settle_heads(papa, config)
    raw = load_task(settings.data)
    check_metric(raw.task.metric, len(raw.label_names), settings.data.task)
    splits = make_splits(raw, settings)
    scored = splits.test
    if papa.score_on == "calibration":
        if not splits.reads_calibration_labels:
            raise SettingsError(
                "papa.score_on=calibration needs labelled calibration rows: set"
                " data.calibration_examples, or papa.score_on=test"
            )
        scored = splits.calibration.select(np.flatnonzero(splits.part == 0))
    _check_row_numbers(papa, len(splits.train))
    tokenizer = load_tokenizer(folder, config.max_positions)
    check_vocabulary(
        tokenizer, config.vocab_size, getattr(config, "pad_token_id", None)
    )
    highest = min(config.max_positions, tokenizer.model_max_length) // 2 * 2
    if papa.length > highest:
        raise SettingsError(
            f"papa.length={papa.length}: the encoder {settings.encoder.name} allows"
            f" even numbers from 8 to {highest}"
        )
    layout = Layout(papa.length, papa.faithful_release)
    train, scored = (lay_out(tokenizer, e, layout) for e in (splits.train, scored))
    loaded = load_encoder(folder, config, config.num_layers)
    encoder = make_encoder(config, config.num_layers, jnp.dtype(settings.encoder.dtype))
    if papa.faithful_release and config.family == "roberta":
        encoder = close_gaps(encoder)
    if papa.dropout == AUTO:
        papa = dataclasses.replace(papa, dropout=_find_dropout(folder, config))
    return PapaInputs(
        settings=settings,
        papa=papa,
        config=config,
        frozen=Frozen(
            encoder,
            loaded.encoder,
            loaded.final_norm,
            config.num_heads,
            config.hidden_size,
        ),
        probe=SentenceProbe(len(raw.label_names), papa.dropout),
        raw=raw,
        splits=splits,
        train=train,
        scored=scored,
        encoder_digest=loaded.digest,
        rows_digest=digest_examples(splits.train),
    )


def _check_family(
    settings: Settings, papa: PapaSettings, config: EncoderConfig
) -> None:
    """Raises SettingsError where faithful_release meets an encoder it does not have."""
    if papa.faithful_release and config.family not in _RELEASED_FAMILIES:
        raise SettingsError(
            f"papa.faithful_release=True with the {config.family} encoder"
            f" {settings.encoder.name}: the released code has"
            f" {', '.join(_RELEASED_FAMILIES)} only; drop papa.faithful_release"
        )


def _settle_heads(papa: PapaSettings, config: EncoderConfig) -> PapaSettings:
    """Returns settings with the numbers of constant heads filled in, 0 among them.

    Raises:
        SettingsError: a number is more than the encoder's heads.
    """
    total = config.num_layers * config.num_heads
    if max(papa.constant_heads, default=0) > total:
        raise SettingsError(
            f"papa.constant_heads={papa.constant_heads}: the encoder has"
            f" {config.num_layers} layers of {config.num_heads} heads, allowed are"
            f" numbers from 0 to {total}"
        )
    numbers = papa.constant_heads or count_constant(papa.shares, total)
    return dataclasses.replace(papa, constant_heads=tuple(sorted({0, *numbers})))


def _check_row_numbers(papa: PapaSettings, num_rows: int) -> None:
    """Raises SettingsError for averages over more rows than there are."""
    for kind in papa.constants:
        _, _, number = kind.partition("averages_")
        if number and int(number) > num_rows:
            raise SettingsError(
                f"papa.constants={kind}: there are {num_rows:,} training rows; give a"
                " smaller number"
            )


def _find_dropout(folder: Path, config: EncoderConfig) -> float:
    """Returns the released code's dropout before the classifier (section 6)."""
    if config.family == "roberta":
        return 0.0
    assert isinstance(config, PostNormConfig), "the released families are"
    return read_classifier_dropout(folder, config)
