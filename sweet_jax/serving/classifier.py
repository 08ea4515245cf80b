"""The classifier people use: texts in, labels with probabilities and exits out."""

import dataclasses
import math
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float32

from sweet_jax.arrays import LogitBank, Params
from sweet_jax.data.examples import Examples
from sweet_jax.data.tokenize import (
    Tokenized,
    check_vocabulary,
    load_tokenizer,
    tokenize_examples,
)
from sweet_jax.engine.cascade_run import POOLING, Pooling
from sweet_jax.engine.costs import SegmentCosts
from sweet_jax.engine.engine import CHUNK_BATCHES, Engine
from sweet_jax.engine.segments import Segments
from sweet_jax.engine.shapes import Shapes
from sweet_jax.engine.stats import EngineStats, summarise
from sweet_jax.evaluation.collect import Collector
from sweet_jax.evaluation.curves import calibrate_bank
from sweet_jax.exits.criteria import compute_scores
from sweet_jax.exits.exit_rule import ExitRule
from sweet_jax.huggingface.config import load_config
from sweet_jax.serving.description import ModelDescription
from sweet_jax.serving.model_folder import load_model_folder
from sweet_jax.serving.served_model import build_model
from sweet_jax.serving.targets import Targets, make_rule
from sweet_jax.serving.texts import Text, enumerate_chunks, is_pair, make_examples
from sweet_jax.system.files import show
from sweet_jax.thresholds.choice import pick_target


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
        check_vocabulary(self._tokenizer, config.vocab_size)
        joined = build_model(description, config)
        layers = description.exit_layers
        pad_id = int(self._tokenizer.pad_token_id)  # type: ignore[arg-type]
        self.model, self.params = joined, params
        self._collector = Collector(joined, batch_size, description.buckets, pad_id)
        segments = Segments(
            joined,
            params,
            len(layers),
            len(description.label_names),
            description.matmul_precision,
        )
        self.engine = Engine(segments, Shapes(batch_size, description.buckets, pad_id))
        self._stats = EngineStats.make(len(layers))
        self.folder = folder
        self._targets = Targets(folder, description, self.engine)
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
            f"AdaptiveClassifier({show(d.method)} on {show(d.task)}, exits after layers"
            f" {d.exit_layers}, labels {show(', '.join(d.label_names))})"
        )

    def predict(
        self,
        texts: Iterable[Text] | Text,
        threshold: float | None = None,
        criterion: str = "confidence",
        *,
        speedup: float | None = None,
        milliseconds: float | None = None,
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
                next three, the last exit answers.
            criterion: confidence, entropy, margin, patience or, for a model trained
                with exits.learn_to_exit, lte.
            speedup: in layers; the threshold is chosen on calibration part 1.
            milliseconds: per input, on average, from what the segments take on this
                device in full batches (`measure_costs`).
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
            threshold=threshold,
            speedup=speedup,
            milliseconds=milliseconds,
            max_accuracy_loss=max_accuracy_loss,
        )
        thresholds = self.choose_thresholds(target, criterion)
        if isinstance(texts, str) or (self.description.has_pairs and is_pair(texts)):
            return list(self.answer([texts], thresholds, criterion, pooling))  # type: ignore[list-item]
        answers = self.answer(texts, thresholds, criterion, pooling)  # type: ignore[arg-type]
        return list(answers) if isinstance(texts, list | tuple) else answers

    @property
    def stats(self) -> dict[str, Any]:
        """What `predict` has done so far, over all calls: see `stats.summarise`."""
        costs_E = np.array(self.description.cost_fractions)
        with self._lock:
            return {
                **summarise(self._stats, costs_E),
                "programs": self.engine.segments.num_programs,
            }

    def choose_thresholds(
        self, target: tuple[str, float] | None, criterion: str = "confidence"
    ) -> tuple[float, ...]:
        """Returns the thresholds that meet a target; see `Targets.choose_thresholds`.

        Raises:
            ValueError: the target is out of range, the criterion unknown, or the model
                folder has no calibration rows to choose on.
        """
        return self._targets.choose_thresholds(target, criterion)

    def measure_costs(self) -> SegmentCosts:
        """Returns what segments take on this device; see `Targets.measure_costs`."""
        return self._targets.measure_costs()

    def make_rule(self, thresholds: tuple[float, ...], criterion: str) -> ExitRule:
        """Returns who leaves where under thresholds as `choose_thresholds` gives them.

        Raises:
            ValueError: a threshold is out of range, or the criterion reads scores that
                the model does not give.
        """
        return make_rule(self.description, thresholds, criterion)

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
                are read; or an input's probabilities are no numbers.
        """
        return self._answer(texts, self.make_rule(thresholds, criterion), pooling)

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
            for number, answer in enumerate(answers):
                i = answer.exit_index
                p = _compute_softmax(answer.logits_C, temperatures[i])
                if math.isnan(p[0]):  # Then all are: they have one sum.
                    raise ValueError(
                        f"input {number}: exit {i} gives probabilities that are no"
                        " numbers: its weights are too large to compute with; take"
                        " another model"
                    )
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
        size = CHUNK_BATCHES * self.engine.shapes.batch_size
        for first, chunk in enumerate_chunks(texts, size):
            yield self.tokenize(self.make_examples(chunk, first))

    def collect(self, examples: Examples) -> LogitBank:
        """Returns the outputs of all exits on the examples, before temperature."""
        return self._collector.collect(self.params, self.tokenize(examples))

    def score(self, examples: Examples, criterion: str) -> Float32[np.ndarray, "N E"]:
        """Returns the scores of all exits, which thresholds are compared with."""
        temperatures = np.array(self.description.temperatures, np.float32)
        bank = calibrate_bank(self.collect(examples), temperatures, self.lte_ranges)
        return np.asarray(compute_scores(criterion, bank.bank.logits, bank.bank.lte))

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

    def make_examples(self, texts: list[Text], first: int = 0) -> Examples:
        """Returns texts as rows, without labels.

        Args:
            texts: as `predict` takes them.
            first: number of the first one, for messages.

        Raises:
            ValueError: a text is empty, or of the other kind than the model's.
        """
        d = self.description
        return make_examples(texts, d.has_pairs, d.task, first)


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
