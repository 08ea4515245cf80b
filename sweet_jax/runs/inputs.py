"""Prepares and checks the inputs of a run: rows, encoder and models.

All errors in the inputs are found here, before the work directory is made.
"""

import dataclasses
import functools
import hashlib
import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sweet_jax.data.batches import limit_buckets
from sweet_jax.data.calibration_rows import USUAL_CALIBRATION
from sweet_jax.data.examples import Examples, RawTask
from sweet_jax.data.notes import describe_cuts, describe_precision
from sweet_jax.data.sources import load_task
from sweet_jax.data.splits import Splits, make_splits
from sweet_jax.data.tokenize import (
    Tokenized,
    check_vocabulary,
    load_tokenizer,
    tokenize_examples,
)
from sweet_jax.data.tokenizer_classes import PreTrainedTokenizerFast
from sweet_jax.evaluation.frozen_states import FrozenStates
from sweet_jax.evaluation.metrics import check_metric
from sweet_jax.evaluation.probes import Probe, fit_probe
from sweet_jax.exits.criteria import check_lte
from sweet_jax.huggingface.build_models import ModelSpec, build_models
from sweet_jax.huggingface.config import (
    load_config,
    read_classifier_dropout,
)
from sweet_jax.huggingface.find_encoder import find_encoder
from sweet_jax.huggingface.safetensors import LoadedEncoder, load_encoder
from sweet_jax.models.encoder import EncoderConfig
from sweet_jax.models.multi_exit import MultiExitClassifier
from sweet_jax.models.post_norm import PostNormConfig
from sweet_jax.settings import fields as settings_lib
from sweet_jax.settings.fields import Settings
from sweet_jax.settings.registries import BUILTIN_METHODS
from sweet_jax.settings.resolve import (
    check_released_family,
    resolve_epochs,
    resolve_released_exits,
)
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system.caches import find_cache
from sweet_jax.system.files import show_names
from sweet_jax.training.contrastive import begin_contrastive
from sweet_jax.training.member_training import MemberTraining, TrainData
from sweet_jax.training.methods import Member, make_members, separates_segments

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """The checked inputs of a run.

    Attributes:
        settings: settings of the run, with exit layers filled in.
        folder: folder of the encoder.
        config: config of the encoder.
        loaded: weights of the encoder, up to the last exit.
        raw: the task as published.
        splits: the rows of the task.
        tokenizer: tokenizer of the encoder.
        rows: tokenized `train`, `calibration`, `test` and further test sets.
        buckets: lengths that batches are padded to.
        members: members of the method, which are trained separately.
        models: one model per member.
        separate_tables: whether each segment has its own copy of tables that layers
            share.
        inputs: digests of all inputs other than settings that affect the results.
    """

    settings: Settings
    folder: Path
    config: EncoderConfig
    loaded: LoadedEncoder
    raw: RawTask
    splits: Splits
    tokenizer: PreTrainedTokenizerFast
    rows: dict[str, Tokenized]
    buckets: tuple[int, ...]
    members: tuple[Member, ...]
    models: tuple[MultiExitClassifier, ...]
    separate_tables: bool
    inputs: dict[str, str]

    @functools.cached_property
    def trainings(self) -> tuple[MemberTraining, ...]:
        """The training plan of each member."""
        data = TrainData(self.rows["train"], self.buckets, self.pad_id)
        return tuple(
            MemberTraining(model, member, data, self.settings)
            for model, member in zip(self.models, self.members, strict=True)
        )

    @functools.cached_property
    def frozen_states(self) -> FrozenStates:
        """Collects states at the exits of the run, in the encoder as published.

        There layers share their tables; training may give each segment its own copy.
        """
        model = self.models[-1]  # The deepest; its encoder ends at the last exit.
        train = self.settings.train
        return FrozenStates(
            model.encoder.clone(table_starts=(0,)),
            self.settings.exits.layers,
            self.settings.exits.pooling,
            # Rows that devices hold in a train step. evaluate.batch_size may change
            # when this run resumes, and with it the last bits of the states.
            batch_size=train.batch_size // train.accumulate_steps,
            buckets=self.buckets,
            pad_id=self.pad_id,
        )

    @functools.cached_property
    def frozen_probes(self) -> tuple[Probe, ...]:
        """Each exit's linear model of the training rows in the encoder as published.

        Exits start from them, and they are baselines. All hosts make the first call.
        """
        labels_N = self.rows["train"].labels
        return tuple(
            fit_probe(states_ND, labels_N, self.num_classes)
            for states_ND in self.collect_frozen("train")
        )

    def collect_frozen(self, rows: str) -> list[Float[np.ndarray, "N D"]]:
        """Returns each exit's states of `rows` in the encoder as published.

        All hosts make this call.
        """
        return self.frozen_states.collect(
            self.loaded.encoder, self.loaded.final_norm, self.rows[rows]
        )

    @property
    def has_separate_models(self) -> bool:
        """Whether each exit has its own model, so that a cascade pays for several."""
        return len(self.models) > 1

    @property
    def num_classes(self) -> int:
        """The number of classes C."""
        return len(self.raw.label_names)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes about the rows for readers of the results."""
        cuts = [
            note
            for name, rows in self.rows.items()
            for note in describe_cuts(
                rows.truncated_rows, rows.num_rows, name, self.buckets[-1]
            )
        ]
        precision = describe_precision(self.rows["test"].num_rows)
        return (*self.splits.notes, *precision, *cuts)

    @property
    def pad_id(self) -> int:
        """The token id of padding."""
        return int(self.tokenizer.pad_token_id)  # type: ignore[arg-type]


def prepare(settings: Settings) -> Prepared:
    """Finds, reads and checks all inputs of a run.

    Raises:
        ValueError: an input is wrong; the message is one line.
    """
    folder = find_encoder(settings.encoder)
    config = load_config(folder, settings.encoder.ignore_attributes)
    check_released_family(settings, config.family)
    layers = settings.exits.layers or settings_lib.default_exit_layers(
        config.num_layers
    )
    settings_lib.check_exit_layers(layers, config.num_layers)
    settings = settings_lib.replace_fields(settings, {"exits.layers": layers})
    members = make_members(settings, len(layers))
    for criterion in settings.evaluate.criteria:
        check_lte(criterion, settings.exits.learn_to_exit)
    depth = layers[-1] + 1
    if depth < config.num_layers:
        logger.info(
            "the last exit reads layer %d: the encoder is cut from %d to %d layers",
            layers[-1],
            config.num_layers,
            depth,
        )
    raw = load_task(settings.data)
    check_metric(raw.task.metric, len(raw.label_names), settings.data.task)
    splits = make_splits(raw, settings)
    settings = _settle_calibration(settings, splits)
    settings = resolve_epochs(settings, len(splits.train), len(raw.label_names))
    train = settings.train
    members = tuple(
        begin_contrastive(
            member,
            train.contrastive_epochs,
            train.num_epochs,
            settings.optim.contrastive_learning_rate,
        )
        for member in members
    )
    for name, origin in splits.origin.items():
        logger.info("%s: %s", name, origin)
    tokenizer = load_tokenizer(folder, config.max_positions)
    pad_id = getattr(config, "pad_token_id", None)
    check_vocabulary(tokenizer, config.vocab_size, pad_id)
    loaded = load_encoder(folder, config, depth)
    if loaded.ignored:
        logger.info("not part of the encoder: %s", show_names(loaded.ignored))
    if settings.faithful_release:
        assert isinstance(config, PostNormConfig), "both released families are"
        settings = resolve_released_exits(
            settings,
            read_classifier_dropout(folder, config),
            loaded.pooler is not None,
        )
    elif settings.exits.pooler_init == "checkpoint" and loaded.pooler is None:
        raise SettingsError(
            f"exits.pooler_init=checkpoint, but the encoder {settings.encoder.name} has"
            " no pooler: set exits.pooler_init=fresh"
        )
    max_length = min(settings.data.max_length, tokenizer.model_max_length)
    named = {
        "train": splits.train,
        "calibration": splits.calibration,
        "test": splits.test,
        **splits.extra_tests,
    }
    rows = {
        name: tokenize_examples(
            tokenizer, examples, max_length, find_cache() / "tokens"
        )
        for name, examples in named.items()
    }
    # In the released code all segments share one table.
    separate_tables = separates_segments(members) and not settings.faithful_release
    spec = ModelSpec(
        exits=settings.exits,
        member_exits=tuple(member.exits for member in members),
        num_classes=len(raw.label_names),
        shared_pooler=settings.faithful_release,
        separate_tables=separate_tables,
        dtype=settings.encoder.dtype,
        remat=settings.encoder.remat,
    )
    return Prepared(
        settings=settings,
        folder=folder,
        config=config,
        loaded=loaded,
        raw=raw,
        splits=splits,
        tokenizer=tokenizer,
        rows=rows,
        buckets=limit_buckets(settings.data.buckets, max_length),
        members=members,
        models=build_models(config, spec),
        separate_tables=separate_tables,
        inputs={
            "encoder_weights": loaded.digest,
            **_digest_method(settings, members),
            **{f"{name}_rows": digest_examples(e) for name, e in named.items()},
        },
    )


def _settle_calibration(settings: Settings, splits: Splits) -> Settings:
    """Returns the settings with data.calibration_examples filled in.

    Raises:
        SettingsError: the best epoch cannot be selected without labels.
    """
    if settings.train.select == "best" and not splits.reads_calibration_labels:
        raise settings_lib.SettingsError(
            "train.select=best chooses an epoch on labelled calibration rows, and there"
            " are none: give data.validation_file, set data.calibration_examples to 4"
            " or more, or set train.select=last"
        )
    if settings.data.calibration_examples != settings_lib.AUTO:
        return settings
    number = USUAL_CALIBRATION if splits.reads_calibration_labels else 0
    return settings_lib.replace_fields(settings, {"data.calibration_examples": number})


def _digest_method(settings: Settings, members: tuple[Member, ...]) -> dict[str, str]:
    """Returns a digest of a registered method, which may change between versions."""
    if settings.method in BUILTIN_METHODS:
        return {}
    return {"method": hashlib.sha256(repr(members).encode()).hexdigest()[:16]}


def digest_examples(examples: Examples) -> str:
    """Returns 16 hex digits of texts, pairs and labels, in order."""
    digest = hashlib.sha256()
    pairs = examples.pairs or ("",) * len(examples)
    for text, pair in zip(examples.texts, pairs, strict=True):
        digest.update(f"{text}\x1e{pair}\x1f".encode("utf-8", "surrogatepass"))
    digest.update(np.ascontiguousarray(examples.labels, np.int64).tobytes())
    return digest.hexdigest()[:16]
