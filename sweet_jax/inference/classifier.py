"""The classifier people use: texts in, labels with probabilities and exits out."""

import dataclasses
import itertools
import math
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Float32

from sweet_jax.arrays import LogitBank, Params
from sweet_jax.convert.hf_config import load_config, make_encoder
from sweet_jax.data.examples import Examples
from sweet_jax.data.tokenize import Tokenized, load_tokenizer, tokenize_examples
from sweet_jax.evaluation.collect import Collector
from sweet_jax.exits.criteria import FULL
from sweet_jax.inference.budget import Budget, load_budget
from sweet_jax.inference.choice import pick_target
from sweet_jax.inference.decisions import ExitRule
from sweet_jax.inference.engine import (
    CHUNK_BATCHES,
    POOLING,
    Engine,
    EngineStats,
    Pooling,
    summarise,
)
from sweet_jax.inference.model_folder import ModelDescription, load_model_folder
from sweet_jax.inference.segments import Segments
from sweet_jax.models.multi_exit import MultiExitClassifier, join_models, split_model
from sweet_jax.settings import ExitSettings

Text = str | tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the cascade answers for one input.

    Attributes:
        label: name of the most probable class.
        probabilities: calibrated, one per class, in the order of `label_names`.
        exit: number of the exit that answered.
        layers: layers that were run for it; a multi_model cascade adds up its models'.
    """

    label: str
    probabilities: tuple[float, ...]
    exit: int
    layers: int


class AdaptiveClassifier:
    """A trained multi-exit classifier under an exit criterion and a threshold.

    Safe to call from several threads.

    Attributes:
        description: what the model is, with its labels, temperatures, thresholds.
        engine: runs the cascade.
        model: all exits, as one module.
        params: its parameters.
        folder: it was loaded from.
    """

    def __init__(
        self,
        folder: Path,
        description: ModelDescription,
        params: Params,
        batch_size: int,
    ) -> None:
        """Use `load`."""
        self.description = description
        config = load_config(folder / "encoder", description.ignore_attributes)
        self._tokenizer = load_tokenizer(folder / "tokenizer", config.max_positions)
        dtype = jnp.dtype(description.dtype)
        layers = description.exit_layers
        model = MultiExitClassifier(
            encoder=make_encoder(config, layers[-1] + 1, dtype),
            exit_layers=layers,
            exit_numbers=tuple(range(len(layers))),
            num_classes=len(description.label_names),
            features=config.hidden_size,
            settings=ExitSettings(
                pooling=description.pooling,
                learn_to_exit=bool(description.lte_ranges),
            ),
            shared_pooler=description.shared_pooler,
            dtype=dtype,
        )
        joined = join_models(
            split_model(model, description.member_exits, description.separate_tables)
        )
        pad_id = int(self._tokenizer.pad_token_id)  # type: ignore[arg-type]
        self.model, self.params = joined, params
        self._collector = Collector(joined, batch_size, description.buckets, pad_id)
        self.engine = Engine(
            Segments(joined, params, len(layers)),
            batch_size,
            description.buckets,
            pad_id,
            len(description.label_names),
        )
        self._stats = EngineStats.make(len(layers))
        self.folder = folder
        self._budget: Budget | None = None
        self._said_truncated = False
        self._lock = threading.Lock()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.description.label_names

    @property
    def lte_ranges(self) -> Float32[np.ndarray, "E 2"] | None:
        """Range of each exit's learning-to-exit scores; None without heads for them."""
        ranges = self.description.lte_ranges
        return np.array(ranges, np.float32) if ranges else None

    def __repr__(self) -> str:
        """Returns what the model is, in a line."""
        d = self.description
        return (
            f"AdaptiveClassifier({d.method} on {d.task}, exits after layers"
            f" {d.exit_layers}, labels {d.label_names})"
        )

    def predict(
        self,
        texts: Iterable[Text] | Text,
        threshold: float | None = None,
        criterion: str = "confidence",
        *,
        speedup: float | None = None,
        max_accuracy_loss: float | None = None,
        pooling: Pooling = POOLING,
    ) -> list[Prediction] | Iterator[Prediction]:
        """Returns one prediction per input, in order.

        The first exit whose score reaches the threshold answers, and the layers behind
        it are not computed.

        Args:
            texts: texts, or (text, text) pairs for a model of pairs; a single one is
                a list of one. What is neither a list nor a tuple is read as answers are
                taken, in constant memory.
            threshold: in the criterion's own range. Without it, and without one of the
                next two, the last exit answers.
            criterion: confidence, entropy, margin, patience or, for a model trained
                with exits.learn_to_exit, lte.
            speedup: in layers; the threshold is chosen on calibration part 1.
            max_accuracy_loss: the share of inputs that may lose a right answer of the
                full model, with probability 0.9 over the calibration rows
                (docs/budgets.md). Where the rows do not show so much every layer runs,
                and a line says so.
            pooling: how long undecided inputs may wait for others.

        Returns:
            A list for a list, a tuple or a single input; otherwise an iterator.

        Raises:
            ValueError: the threshold is out of range, targets are in conflict, the
                criterion reads scores that the model does not give, an input is empty,
                or it is a pair for a model of single texts or the other way round.
        """
        target = pick_target(
            threshold=threshold, speedup=speedup, max_accuracy_loss=max_accuracy_loss
        )
        thresholds = self.choose_thresholds(target, criterion)
        if isinstance(texts, str) or self._is_pair(texts):
            return list(self.answer([texts], thresholds, criterion, pooling))  # type: ignore[list-item]
        answers = self.answer(texts, thresholds, criterion, pooling)  # type: ignore[arg-type]
        return list(answers) if isinstance(texts, list | tuple) else answers

    @property
    def stats(self) -> dict[str, Any]:
        """What `predict` has done so far, over all calls: see `engine.summarise`."""
        costs_E = np.array(self.description.cost_fractions)
        with self._lock:
            return {
                **summarise(self._stats, costs_E),
                "programs": self.engine.segments.num_programs,
            }

    def choose_thresholds(
        self, target: tuple[str, float] | None, criterion: str = "confidence"
    ) -> tuple[float, ...]:
        """Returns the thresholds that meet a target: one for all exits, or one each.

        Args:
            target: (`threshold`, `speedup` or `max_accuracy_loss`, value); None: every
                layer runs.
            criterion: whose scores they are compared with.

        Raises:
            ValueError: the target is out of range, the criterion unknown, or the model
                folder has no calibration rows to choose on.
        """
        if target is None:
            thresholds: tuple[float, ...] = (FULL,)
        elif target[0] == "threshold":
            thresholds = (target[1],)
        else:
            budget = self._find_budget()
            if target[0] == "speedup":
                choice = budget.choose_speedup(target[1], criterion)
            else:
                choice = budget.choose_risk(target[1], criterion=criterion)
            level = logging.INFO if choice.feasible else logging.WARNING
            logging.log(level, choice)
            thresholds = choice.thresholds
        self._make_rule(thresholds, criterion)
        return thresholds

    def _find_budget(self) -> Budget:
        with self._lock:
            if self._budget is None:
                self._budget = load_budget(self.folder, self.description)
            return self._budget

    def _make_rule(self, thresholds: tuple[float, ...], criterion: str) -> ExitRule:
        d = self.description
        num_exits = len(d.exit_layers)
        # The last exit answers whatever it says.
        limits = thresholds if len(thresholds) > 1 else thresholds * (num_exits - 1)
        rule = ExitRule(
            criterion,
            np.array([*limits, FULL], np.float32),
            np.array(d.temperatures, np.float32),
            self.lte_ranges,
        )
        rule.check(len(d.label_names))
        return rule

    def answer(
        self,
        texts: Iterable[Text],
        thresholds: tuple[float, ...],
        criterion: str = "confidence",
        pooling: Pooling = POOLING,
    ) -> Iterator[Prediction]:
        """Returns the predictions of a stream, computed as they are taken.

        Args:
            texts: as `predict` takes them.
            thresholds: of `choose_thresholds`.
            criterion: whose scores they are compared with.
            pooling: how long undecided inputs may wait for others.

        Raises:
            ValueError: as `predict`; of the thresholds at once, of the texts as they
                are read.
        """
        return self._answer(texts, self._make_rule(thresholds, criterion), pooling)

    def _answer(
        self, texts: Iterable[Text], rule: ExitRule, pooling: Pooling
    ) -> Iterator[Prediction]:
        stats = EngineStats.make(rule.num_exits)
        layers_E = np.rint(
            np.array(self.description.cost_fractions)
            * (self.description.exit_layers[-1] + 1)
        ).astype(int)
        temperatures = rule.temperatures.tolist()
        try:
            answers = self.engine.run(self._read(texts), rule, pooling, stats)
            for answer in answers:
                i = answer.exit_index
                p = _compute_softmax(answer.logits_C, temperatures[i])
                yield Prediction(
                    self.label_names[p.index(max(p))],
                    p,
                    i,
                    int(layers_E[i]),
                )
        finally:
            with self._lock:
                self._stats.add(stats)

    def _read(self, texts: Iterable[Text]) -> Iterator[Tokenized]:
        """Yields tokenised chunks of the texts."""
        size = CHUNK_BATCHES * self.engine.batch_size
        for first, chunk in enumerate_chunks(texts, size):
            yield self.tokenize(self._make_examples(chunk, first))

    def collect(self, examples: Examples) -> LogitBank:
        """Returns the outputs of all exits on the examples, before temperature."""
        return self._collector.collect(self.params, self.tokenize(examples))

    def tokenize(self, examples: Examples) -> Tokenized:
        """Returns the examples as the model reads them."""
        # Truncation is a state of the tokenizer: one thread at a time.
        max_length = self.description.max_length
        with self._lock:
            tokenized = tokenize_examples(
                self._tokenizer, examples, max_length, cache_dir=None
            )
            if tokenized.truncated_rows and not self._said_truncated:
                self._said_truncated = True
                logging.warning(
                    "an input is longer than the %d tokens that the model reads: such"
                    " inputs are cut, as in training (said once)",
                    max_length,
                )
        return tokenized

    def _is_pair(self, text: object) -> bool:
        return (
            self.description.has_pairs
            and isinstance(text, tuple)
            and len(text) == 2
            and all(isinstance(part, str) for part in text)
        )

    def _make_examples(self, texts: list[Text], first: int) -> Examples:
        for i, text in enumerate(texts, first):
            if self.description.has_pairs and not self._is_pair(text):
                raise ValueError(
                    f"input {i} is no (text, text) pair: this model was trained on"
                    f" pairs ({self.description.task})"
                )
            if not self.description.has_pairs and not isinstance(text, str):
                raise ValueError(
                    f"input {i} is a {type(text).__name__}: this model takes single"
                    f" texts ({self.description.task})"
                )
            if not all(
                part.strip() for part in ([text] if isinstance(text, str) else text)
            ):
                raise ValueError(f"input {i} is empty: leave it out")
        has_pairs = self.description.has_pairs
        return Examples(
            tuple(text if isinstance(text, str) else text[0] for text in texts),
            tuple(text[1] for text in texts) if has_pairs else None,
            np.zeros(len(texts), np.int32),
            np.arange(len(texts), dtype=np.int64),
        )


def _compute_softmax(
    logits_C: Float32[np.ndarray, " C"], temperature: float
) -> tuple[float, ...]:
    # Of one row, at the rate at which a stream gives them: for few classes ten times as
    # fast as in arrays.
    scaled = [logit / temperature for logit in logits_C.tolist()]
    highest = max(scaled)
    powers = [math.exp(logit - highest) for logit in scaled]
    total = sum(powers)
    return tuple(power / total for power in powers)


def enumerate_chunks(
    items: Iterable[Text], size: int
) -> Iterator[tuple[int, list[Text]]]:
    """Yields lists of up to `size` items, each with the position of its first."""
    iterator, first = iter(items), 0
    while chunk := list(itertools.islice(iterator, size)):
        yield first, chunk
        first += len(chunk)


def load(path: str | Path, batch_size: int = 32) -> AdaptiveClassifier:
    """Loads the model folder of a finished run (`WORKDIR/model`).

    Args:
        path: the folder.
        batch_size: inputs per batch; no answer depends on it.

    Raises:
        ModelFolderError: no such folder, a newer schema, a file missing or altered.
        ValueError: the batch size is no positive number.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: allowed is 1 or more")
    folder = Path(path)
    description, params = load_model_folder(folder)
    return AdaptiveClassifier(folder, description, params, batch_size)
