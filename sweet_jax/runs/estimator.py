"""`SweetClassifier`: a classifier of texts with scikit-learn's interface."""

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d

from sweet_jax.data.columns import name_label
from sweet_jax.data.in_memory import HeldRows, hold_rows
from sweet_jax.runs.from_python import make_settings
from sweet_jax.runs.run import Run
from sweet_jax.runs.workdir import MODEL
from sweet_jax.settings.fields import Settings
from sweet_jax.system.files import write_folder

# Folders that a fitted estimator does not need: it never resumes training.
_LEFT_OUT = ("checkpoints", "tensorboard")


class SweetClassifier(ClassifierMixin, BaseEstimator):
    """Fine-tunes an encoder with exits on texts; predicts at a chosen speed-up.

        estimator = SweetClassifier(num_epochs=2).fit(texts, labels)
        estimator.predict(more_texts, speedup=2)

    X is a list, a Series or an array of texts, or a DataFrame or array with one text
    column, or two for pairs of texts. The files of a fit are in a temporary folder that
    is deleted with the estimator; a pickle contains the model.

    Some of the rows given to `fit` are used for test and calibration, not for training;
    see `run_.results["splits"]`.

    Parameters are stored as they are and checked by `fit`; None means the default of
    the setting.

    Args:
        encoder: `encoder.name`: an embedded encoder, a folder or a hub id.
        method: how the exits are trained, such as `sweet` or `early_exit`.
        num_epochs: passes over the training rows.
        batch_size: rows per step.
        max_length: longest text in tokens; longer ones are truncated.
        encoder_learning_rate: peak learning rate of the encoder.
        exit_learning_rate: peak learning rate of the exits.
        max_train_examples: largest number of training rows to use; 0: all.
        seed: seed for the choice and order of rows, fresh weights and dropout.
        criterion: exit criterion (docs/budgets.md).
        speedup: target speed-up of predictions, unless a call gives another target.
        threshold: threshold of predictions, unless a call gives another target.
        settings: further settings by name, such as `{"optim.clip_norm": 0.5}`.
        verbose: whether to show the progress of training.

    Attributes:
        classes_: the labels, sorted.
        n_features_in_: number of text columns, 1 or 2.
        feature_names_in_: their names, if X was a DataFrame.
        run_: the `Run`, with results, report and the `AdaptiveClassifier`.
    """

    def __init__(
        self,
        *,
        encoder: Any = "minilm-l6",
        method: str = "sweet",
        num_epochs: int | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        encoder_learning_rate: float | None = None,
        exit_learning_rate: float | None = None,
        max_train_examples: int | None = None,
        seed: int = 0,
        criterion: str = "confidence",
        speedup: float | None = None,
        threshold: float | None = None,
        settings: Mapping[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        self.encoder = encoder
        self.method = method
        self.num_epochs = num_epochs
        self.batch_size = batch_size
        self.max_length = max_length
        self.encoder_learning_rate = encoder_learning_rate
        self.exit_learning_rate = exit_learning_rate
        self.max_train_examples = max_train_examples
        self.seed = seed
        self.criterion = criterion
        self.speedup = speedup
        self.threshold = threshold
        self.settings = settings
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "SweetClassifier":
        """Trains on texts and their labels.

        Raises:
            ValueError: a text or a label is missing or has a wrong type, X and y have
                different lengths, there is only one class, or a setting is wrong.
        """
        if y is None:
            raise ValueError(
                "SweetClassifier requires y to be passed, but the target y is None:"
                " give one label for each text"
            )
        X = _as_texts(X)
        if getattr(y, "ndim", 1) != 1 or hasattr(y, "__array__"):
            y = column_or_1d(y, warn=True)
        labels_N = np.asarray(y)
        if labels_N.dtype.kind == "f":
            check_classification_targets(labels_N)  # Passes only for integers.
            y = labels_N.astype(int)
        names = _list_names(X)
        rows = hold_rows({"train": X}, text=names, label=y)
        settings = self._make_settings(rows)
        # Imported here: a wrong setting is reported before jax loads.
        from sweet_jax.runs import pipeline

        folder = _TemporaryFolder()
        pipeline.run(settings, folder.path, quiet=not self.verbose)
        for name in _LEFT_OUT:
            shutil.rmtree(folder.path / name, ignore_errors=True)
        self.run_ = Run(folder.path, owner=folder)
        self.classes_ = np.unique(labels_N)
        self.n_features_in_ = 1 if rows.tables["train"].pairs is None else 2
        if names is not None:
            self.feature_names_in_ = np.array(names, object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        return self

    def predict(
        self,
        X: Any,
        speedup: float | None = None,
        threshold: float | None = None,
        criterion: str | None = None,
    ) -> np.ndarray:
        """Returns the label of each text, of the type of those in `fit`.

        Args:
            X: texts, as in `fit`.
            speedup: target in layers; the threshold is chosen on calibration rows.
            threshold: in the criterion's own range. Without a target, here and in the
                parameters, every text runs to the last exit.
            criterion: None: the parameter `criterion`.

        Raises:
            ValueError: a text is missing or empty, or a target is out of reach.
            NotFittedError: `fit` has not been called.
        """
        probabilities_NC = self.predict_proba(X, speedup, threshold, criterion)
        return self.classes_[probabilities_NC.argmax(axis=1)]

    def predict_proba(
        self,
        X: Any,
        speedup: float | None = None,
        threshold: float | None = None,
        criterion: str | None = None,
    ) -> np.ndarray:
        """Returns calibrated probabilities [N, C], classes in the order of `classes_`.

        See `predict` for the arguments and exceptions.
        """
        check_is_fitted(self)
        if speedup is None and threshold is None:
            speedup, threshold = self.speedup, self.threshold
        classifier = self.run_.classifier
        answers = classifier.predict(
            self._take_texts(X),
            threshold=threshold,
            criterion=self.criterion if criterion is None else criterion,
            speedup=speedup,
        )
        # The classifier orders strings such as "10" as numbers.
        place = {name: i for i, name in enumerate(classifier.label_names)}
        labels = self.classes_.tolist()
        order_C = [
            place[name_label(int(label) if isinstance(label, float) else label)]
            for label in labels
        ]
        return np.array([answer.probabilities for answer in answers])[:, order_C]

    def save(self, folder: str | Path) -> None:
        """Writes the model folder, which `sweet_jax.load` and the commands read.

        Args:
            folder: path of the folder; an older one is replaced.

        Raises:
            NotFittedError: `fit` has not been called.
        """
        check_is_fitted(self)
        with write_folder(Path(folder)) as target:
            shutil.copytree(self.run_.workdir / MODEL, target, dirs_exist_ok=True)

    def _make_settings(self, rows: HeldRows) -> Settings:
        given = {
            "train.num_epochs": self.num_epochs,
            "train.batch_size": self.batch_size,
            "data.max_length": self.max_length,
            "data.max_train_examples": self.max_train_examples,
            "optim.encoder_learning_rate": self.encoder_learning_rate,
            "optim.exit_learning_rate": self.exit_learning_rate,
            "seed": self.seed,
        }
        keywords = {name: value for name, value in given.items() if value is not None}
        keywords |= self.settings or {}
        if not keywords.keys() & {"measure_costs", "evaluate.measure_costs"}:
            keywords["evaluate.measure_costs"] = False  # Not used here.
        data = {"task": rows.task_name}
        return make_settings(self.encoder, self.method, data, keywords)

    def _take_texts(self, X: Any) -> Any:
        """Returns texts or pairs for `AdaptiveClassifier.predict`.

        Raises:
            ValueError: X has other columns than in `fit`, or no rows.
        """
        X = _as_texts(X)
        names = _list_names(X)
        if names is not None:
            known = list(getattr(self, "feature_names_in_", names))
            if names != known:
                raise ValueError(
                    f"X has the columns {', '.join(names)}, but fit was called with"
                    f" {', '.join(known)}: give these columns"
                )
            columns = [X[name] for name in X.columns]
            X = columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        if isinstance(X, np.ndarray):
            X = X.tolist()
        if not hasattr(X, "__len__") or isinstance(X, str):
            raise ValueError(
                f"X is of type {type(X).__name__}: expected a list, a Series, an array"
                " or a DataFrame of texts"
            )
        if len(X) == 0:
            raise ValueError("X has 0 samples, while a minimum of 1 is required")
        first = next(iter(X))
        is_row = isinstance(first, tuple | list)
        width = len(first) if is_row else 1
        if width != self.n_features_in_:
            raise ValueError(
                f"X has {width} features, but SweetClassifier is expecting"
                f" {self.n_features_in_} features as input"
            )
        if not is_row:
            return X
        return [row[0] if width == 1 else tuple(row) for row in X]

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state, with the files of the run instead of its folder."""
        state: dict[str, Any] = {**super().__getstate__()}  # type: ignore[dict-item]
        if "run_" in state:
            root = state.pop("run_").workdir
            state["_files"] = {
                str(path.relative_to(root)): path.read_bytes()
                for path in sorted(root.rglob("*"))
                if path.is_file()
            }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Writes the files of the run to a new temporary folder."""
        state = dict(state)
        files = state.pop("_files", None)
        super().__setstate__(state)
        if files is None:
            return
        folder = _TemporaryFolder()
        for name, content in files.items():
            path = folder.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.run_ = Run(folder.path, owner=folder)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` has been called."""
        return hasattr(self, "run_")

    def __sklearn_tags__(self) -> Any:
        """Returns the tags: inputs are strings, in one column or two."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        return tags


class _TemporaryFolder:
    """A temporary folder that is removed when this object is garbage-collected.

    `tempfile.TemporaryDirectory` would raise a ResourceWarning then.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="sweet_jax-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _as_texts(X: Any) -> Any:
    """Returns X, as an array if it is array-like; raises for numbers.

    Raises:
        TypeError: X is sparse.
        ValueError: X holds numbers.
    """
    if issparse(X):
        raise TypeError("X is a sparse matrix, expected texts: give a list of texts")
    if _list_names(X) is not None or hasattr(X, "index"):
        return X
    if hasattr(X, "__array__"):
        X = np.asarray(X)
    if getattr(X, "dtype", np.dtype(object)).kind in "biufc":
        # First, scikit-learn's own messages for complex, empty and missing numbers.
        check_array(X)
        raise ValueError(
            f"X is an array of {X.dtype}: expected texts; use another classifier for"
            " numbers"
        )
    return X


def _list_names(X: Any) -> list[str] | None:
    """Returns the column names of a DataFrame; None for other inputs."""
    columns = getattr(X, "columns", None)
    return None if columns is None else [str(name) for name in columns]
