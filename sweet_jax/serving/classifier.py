"""The classifier for users: maps texts to labels, probabilities and exits."""

import dataclasses
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn
from jaxtyping import Float32

from sweet_jax.arrays import LogitBank, Params
from sweet_jax.data.examples import Examples
from sweet_jax.data.tokenize import (
    Tokenized,
    check_vocabulary,
    load_tokenizer,
    tokenize_examples,
)
from sweet_jax.engine.backend import Backend
from sweet_jax.engine.cascade_run import POOLING, Pooling
from sweet_jax.engine.costs import SegmentCosts, measure_costs
from sweet_jax.engine.engine import CHUNK_BATCHES, Engine
from sweet_jax.engine.shapes import Shapes
from sweet_jax.engine.stats import EngineStats, summarise
from sweet_jax.evaluation.collect import Collector
from sweet_jax.exits.calibration import Calibration
from sweet_jax.exits.criteria import FULL
from sweet_jax.exits.exit_rule import ExitRule
from sweet_jax.huggingface.config import load_config
from sweet_jax.serving.description import ModelDescription
from sweet_jax.serving.served_model import build_model
from sweet_jax.serving.texts import Text, enumerate_chunks, make_examples, take_texts
from sweet_jax.system.files import show
from sweet_jax.thresholds.budget import (
    check_positive,
    choose_milliseconds,
    choose_speedup,
)
from sweet_jax.thresholds.choice import Choice, check_choose, pick_target
from sweet_jax.thresholds.risk import choose_risk

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction of the cascade for one input.

    Attributes:
        label: name of the most probable class.
        probabilities: calibrated, one per class, in the order of `label_names`.
        exit: number of the exit at which the input left.
        layers: number of layers that were run; summed over the models of a multi_model.
    """

    label: str
    probabilities: tuple[float, ...]
    exit: int
    layers: int


class AdaptiveClassifier:
    """A trained multi-exit classifier that stops computing each input at an early exit.

    Safe to call from several threads.

    Attributes:
        description: method, labels, exits and thresholds of the model.
        calibration: its calibration rows, with temperatures and costs of exits.
        engine: runs the cascade.
        model: the module with all exits.
        params: parameters of the model; {} if it was loaded from an ONNX folder.
        tokenizer: the encoder's tokenizer.
        folder: the folder it was loaded from.
    """

    def __init__(
        self,
        folder: Path,
        description: ModelDescription,
        params: Params,
        calibration: Calibration,
        batch_size: int,
        make_segments: Callable[[nn.Module], Backend],
    ) -> None:
        """Use `load`."""
        self.description, self.calibration = description, calibration
        config = load_config(folder / "encoder", description.ignore_attributes)
        self.tokenizer = load_tokenizer(folder / "tokenizer", config.max_positions)
        check_vocabulary(self.tokenizer, config.vocab_size)
        joined = build_model(description, config)
        layers = description.exit_layers
        pad_id = int(self.tokenizer.pad_token_id)  # type: ignore[arg-type]
        self.model, self.params = joined, params
        segments = make_segments(joined)
        shapes = Shapes(
            batch_size, description.buckets, pad_id, segments.has_fixed_shapes
        )
        self.engine = Engine(segments, shapes)
        # One pass of the whole model; backends without fixed shapes have no such pass.
        self._collector = (
            Collector(joined, batch_size, description.buckets, pad_id)
            if segments.has_fixed_shapes
            else None
        )
        self._stats = EngineStats.make(len(layers))
        self.folder = folder
        self._costs: SegmentCosts | None = None
        self._choices: dict[tuple[str, float, str, str], Choice] = {}
        self._said_truncated = False
        self._lock, self._costs_lock = threading.Lock(), threading.Lock()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.description.label_names

    def __repr__(self) -> str:
        """Returns method, task, exits and labels in one line."""
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
        choose: str = "cost",
        pooling: Pooling = POOLING,
    ) -> list[Prediction] | Iterator[Prediction]:
        """Returns one prediction per input, in order.

        The first exit whose score reaches the threshold answers; later layers are not
        computed.

        Args:
            texts: texts, or (text, text) pairs for a model of pairs: a list, a tuple, a
                pandas Series, a numpy array, or a single text. Any other iterable is
                read only as predictions are consumed, in constant memory.
            threshold: in the criterion's own range. Without it and without one of the
                next three, every input runs to the last exit.
            criterion: confidence, entropy, margin, patience or, for a model trained
                with exits.learn_to_exit, lte.
            speedup: mean speed-up over inputs, in layers.
            milliseconds: mean time per input, from segment times measured on this
                device in full batches (`measure_costs`).
            max_accuracy_loss: largest share of inputs for which the full model is right
                and the cascade wrong, with probability 0.9 over the calibration rows
                (docs/budgets.md). If the rows do not show such a bound, every layer
                runs, and a line of the log says so.
            choose: for speedup and milliseconds. `cost`: the most expensive threshold
                within the budget, on all calibration rows; `score`: the one with the
                best score within it, on those of part 1.
            pooling: limits on how long undecided inputs wait for a full batch.

        Returns:
            A list for a list, tuple, Series, array or single input; otherwise an
            iterator.

        Raises:
            ValueError: the threshold is out of range, a target is out of reach (the
                message names the reachable value), several targets are given, the model
                does not have the scores of the criterion, an input is empty, or it is a
                pair for a model of single texts or a text for a model of pairs.
        """
        target = pick_target(
            threshold=threshold,
            speedup=speedup,
            milliseconds=milliseconds,
            max_accuracy_loss=max_accuracy_loss,
        )
        thresholds = self.choose_thresholds(target, criterion, choose)
        inputs = take_texts(texts, self.description.has_pairs)
        answers = self.answer(inputs, thresholds, criterion, pooling)
        return list(answers) if isinstance(inputs, list | tuple) else answers

    @property
    def stats(self) -> dict[str, Any]:
        """Statistics of all calls of `predict` so far; see `stats.summarise`."""
        costs_E = self.calibration.costs_E
        with self._lock:
            return {
                **summarise(self._stats, costs_E),
                "programs": self.engine.segments.num_programs,
            }

    def choose_thresholds(
        self,
        target: tuple[str, float] | None,
        criterion: str = "confidence",
        choose: str = "cost",
    ) -> tuple[float, ...]:
        """Returns the thresholds for a target: one for all exits, or one per exit.

        Args:
            target: (`threshold`, `speedup`, `milliseconds` or `max_accuracy_loss`,
                value); None: every layer runs.
            criterion: the criterion whose scores are compared with the thresholds.
            choose: `cost` or `score`; see `predict`.

        Raises:
            ValueError: the target is out of range or out of reach, the criterion is
                unknown or does not fit the model, or `choose` does not fit the target.
        """
        name, value = target or ("threshold", FULL)
        check_choose(choose, name)
        if name == "threshold":
            thresholds: tuple[float, ...] = (value,)
        else:
            thresholds = self._choose(name, value, criterion, choose).thresholds
        self.make_rule(thresholds, criterion)
        return thresholds

    def _choose(self, name: str, value: float, criterion: str, choose: str) -> Choice:
        """Returns the choice for a target; logs it the first time."""
        key = (name, value, criterion, choose)
        if key in self._choices:
            return self._choices[key]
        if name == "speedup":
            choice = choose_speedup(self.calibration, value, criterion, choose)
        elif name == "milliseconds":
            # Before measuring segments, which takes seconds.
            check_positive(name, value)
            self.make_rule((FULL,), criterion)
            seconds_E = self.measure_costs().seconds_per_row
            choice = choose_milliseconds(
                self.calibration, value, seconds_E, criterion, choose
            )
        else:
            choice = choose_risk(self.calibration, value, criterion=criterion)
        logger.log(logging.INFO if choice.feasible else logging.WARNING, choice)
        self._choices[key] = choice
        return choice

    def measure_costs(self) -> SegmentCosts:
        """Measures the segments on this device, for the lengths of calibration rows.

        This happens once, on full batches; the first call compiles.
        """
        d, shapes = self.description, self.engine.shapes
        with self._costs_lock:
            if self._costs is None:
                lengths = np.repeat(d.buckets, d.bucket_rows)
                self._costs = measure_costs(
                    self.engine.segments, lengths, shapes.batch_size, d.buckets
                )
            return self._costs

    def make_rule(self, thresholds: tuple[float, ...], criterion: str) -> ExitRule:
        """Returns the exit rule for these thresholds; see `ExitRule.make`."""
        return ExitRule.make(self.calibration, thresholds, criterion)

    def answer(
        self,
        texts: Iterable[Text],
        thresholds: tuple[float, ...],
        criterion: str = "confidence",
        pooling: Pooling = POOLING,
    ) -> Iterator[Prediction]:
        """Returns the predictions of a stream, computed as they are consumed.

        Args:
            texts: see `predict`.
            thresholds: from `choose_thresholds`.
            criterion: the criterion whose scores are compared with the thresholds.
            pooling: limits on how long undecided inputs wait for a full batch.

        Raises:
            ValueError: as in `predict`, for thresholds immediately and for texts when
                they are read; or the probabilities of an input are NaN.
        """
        return self._answer(texts, self.make_rule(thresholds, criterion), pooling)

    def _answer(
        self, texts: Iterable[Text], rule: ExitRule, pooling: Pooling
    ) -> Iterator[Prediction]:
        stats = EngineStats.make(rule.num_exits)
        layers_E = np.rint(
            self.calibration.costs_E * (self.description.exit_layers[-1] + 1)
        ).astype(int)
        temperatures = rule.temperatures.tolist()
        try:
            answers = self.engine.run(self._read(texts), rule, pooling, stats)
            for number, answer in enumerate(answers):
                i = answer.exit_index
                p = _compute_softmax(answer.logits_C, temperatures[i])
                if math.isnan(p[0]):  # Then all are NaN: they have a common sum.
                    raise ValueError(
                        f"input {number}: exit {i} gives probabilities that are not"
                        " numbers, since its weights are too large; use another model"
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
        """Yields tokenized chunks of the texts."""
        size = CHUNK_BATCHES * self.engine.shapes.batch_size
        for first, chunk in enumerate_chunks(texts, size):
            yield self.tokenize(self.make_examples(chunk, first))

    def collect(self, examples: Examples) -> LogitBank:
        """Returns the outputs of all exits on the examples, before temperature."""
        rows = self.tokenize(examples)
        if self._collector is None:
            return self.engine.collect(rows)
        return self._collector.collect(self.params, rows)

    def score(self, examples: Examples, criterion: str) -> Float32[np.ndarray, "N E"]:
        """Returns the scores of all exits, for comparison with thresholds."""
        return self.calibration.apply(self.collect(examples)).score(criterion)

    def tokenize(self, examples: Examples) -> Tokenized:
        """Returns the tokenized examples."""
        # The tokenizer stores its truncation length, so one thread at a time uses it.
        max_length = self.description.max_length
        with self._lock:
            tokenized = tokenize_examples(
                self.tokenizer, examples, max_length, cache_dir=None
            )
            if tokenized.truncated_rows and not self._said_truncated:
                self._said_truncated = True
                logger.warning(
                    "an input is longer than the %d tokens that the model reads: such"
                    " inputs are truncated, as in training (logged once)",
                    max_length,
                )
        return tokenized

    def make_examples(self, texts: list[Any], first: int = 0) -> Examples:
        """Returns texts as rows, without labels.

        Args:
            texts: see `predict`.
            first: number of the first text, for messages.

        Raises:
            ValueError: a text is empty, or single where the model needs a pair, or the
                reverse.
        """
        d = self.description
        return make_examples(texts, d.has_pairs, d.task, first)


def _compute_softmax(
    logits_C: Float32[np.ndarray, " C"], temperature: float
) -> tuple[float, ...]:
    # Plain Python: a stream gives one row at a time, and for few classes this is ten
    # times as fast as numpy.
    scaled = [logit / temperature for logit in logits_C.tolist()]
    highest = max(scaled)
    powers = [math.exp(logit - highest) for logit in scaled]
    total = sum(powers)
    return tuple(power / total for power in powers)
