"""The steps of PAPA, in order; an interrupted analysis resumes at any of them.

constants -> rankings of heads -> points (probes with k constant heads) -> results, page

    constants.npz               sums of attention over the training rows
    rankings/NAME.json          a score for every head
    points/NAME.npz             logits of every probe of one point on the scored rows
    checkpoints/                states of unfinished trainings
    papa.json papa.md papa.html plots/
"""

import hashlib
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from sweet_jax.analysis.papa.constants import (
    AttentionPass,
    AttentionSums,
    find_row_numbers,
    make_constants,
)
from sweet_jax.analysis.papa.constants_file import (
    FILE_NAME,
    StoredSums,
    load_sums,
    save_sums,
)
from sweet_jax.analysis.papa.fit import Fit, FitSettings, FitState
from sweet_jax.analysis.papa.heads import (
    keep_dynamic,
    rank_at_random,
    rank_by_place,
    sort_heads,
)
from sweet_jax.analysis.papa.points import (
    Heads,
    StatePass,
    make_kept_loss,
    make_streamed_loss,
)
from sweet_jax.analysis.papa.progress import Progress
from sweet_jax.analysis.papa.ranking import (
    make_gates_init,
    make_gates_loss,
    make_probe_init,
    measure_heads,
)
from sweet_jax.arrays import ArraySpec, load_npz, save_npz
from sweet_jax.devices import configure_jax, is_first_host
from sweet_jax.report.papa_page import PAGE, write_papa_report
from sweet_jax.report.papa_plots import plot_constants
from sweet_jax.report.papa_record import RECORD
from sweet_jax.report.style import Picture
from sweet_jax.runs.papa_inputs import PapaInputs, prepare_papa
from sweet_jax.runs.papa_results import Curve, Point, make_record
from sweet_jax.runs.workdir import LockedFolder
from sweet_jax.settings.fields import (
    PapaSettings,
    Settings,
    compute_digest,
    flatten_settings,
    to_dict,
)
from sweet_jax.settings.rules import SettingsError
from sweet_jax.system import checksums
from sweet_jax.system.files import FileError, hash_file, read_object, write_json
from sweet_jax.training.checkpoint import Checkpoints

logger = logging.getLogger(__name__)

# Fields that change no result.
_HARMLESS = ("checkpoint_every_steps", "points_at_once", "rows_at_once")
# Rows between two stored states of the constants, and for scores without training.
_ROWS_BETWEEN_SAVES, _MEASURED_ROWS = 5000, 512
_KEPT_BYTES = 2e9
# Points of a group whose numbers of constant heads are shown.
_MOST_IN_TITLE = 6
_STEPS_PER_CALL = {"kept": 10, "streamed": 1}
_REMEDY = "repeat the command of the analysis, which makes it again"
_POINT = {
    "logits": ArraySpec("f", ("S", "N", "C")),
    "seconds": ArraySpec("f", ()),
    "digest": ArraySpec("U", ()),
}


class PapaWorkdir(LockedFolder):
    """The work directory of an analysis."""

    def __init__(self, path: Path, inputs: PapaInputs, writes: bool) -> None:
        """Makes a directory, or opens one with the same settings and inputs.

        Raises:
            WorkdirError: see `LockedFolder`.
        """
        nested = {**to_dict(inputs.settings), "papa": _list_fields(inputs.papa)}
        super().__init__(path, nested, list_papa_fields(inputs), writes)

    def read_record(self) -> dict[str, Any] | None:
        """Returns papa.json if the analysis is finished and the file is intact."""
        if RECORD not in self.find_intact([RECORD]):
            return None
        return read_object(self.path / RECORD, _REMEDY)


def run_papa(
    settings: Settings,
    papa: PapaSettings,
    workdir: Path | None = None,
    quiet: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Runs all steps that are not yet finished in the work directory.

    Args:
        settings: encoder, rows and seed.
        papa: settings of the analysis.
        workdir: work directory; None: `default_papa_workdir`.
        quiet: whether to hide the progress.

    Returns:
        The work directory and the content of its papa.json.

    Raises:
        ValueError: an input is wrong, or the work directory belongs to something else.
        Interrupted: a stop was requested during training; the same call resumes.
    """
    configure_jax(settings.encoder.matmul_precision)
    if jax.process_count() > 1:
        raise SettingsError("analyze papa runs on one host: leave out --multihost")
    inputs = prepare_papa(settings, papa)
    others = read_others(inputs)
    work = PapaWorkdir(workdir or default_papa_workdir(inputs), inputs, is_first_host())
    try:
        record = work.read_record()
        if record is not None and (work.path / PAGE).exists():
            logger.info("%s is finished: nothing to do", work.path)
            return work.path, record
        work.require_writing()
        steps = _Steps(inputs, others, work, quiet)
        record = steps.run()
        write_papa_report(work.path, steps.plot_constants())
        return work.path, record
    finally:
        work.close()


def default_papa_workdir(inputs: PapaInputs) -> Path:
    """Returns `runs/papa-{task}-{encoder}-s{seed}-{8 hex of the settings}`."""
    digest = compute_digest(list_papa_fields(inputs))[:8]
    task = Path(inputs.settings.data.task).name
    encoder = Path(inputs.settings.encoder.name).name
    return Path("runs") / f"papa-{task}-{encoder}-s{inputs.settings.seed}-{digest}"


def list_papa_fields(inputs: PapaInputs) -> dict[str, Any]:
    """Returns the flat fields and digests that all results depend on."""
    fields = {
        name: value
        for name, value in flatten_settings(inputs.settings).items()
        if name == "seed" or name.startswith(("encoder.", "data."))
    }
    fields |= {
        f"papa.{name}": value
        for name, value in _list_fields(inputs.papa).items()
        if name not in _HARMLESS
    }
    digests = {"encoder_weights": inputs.encoder_digest, "rows": inputs.rows_digest}
    for text in inputs.papa.constants_of:
        digests[f"constants of {text}"] = hash_file(Path(text) / FILE_NAME)[:16]
    fields |= {f"inputs.{name}": value for name, value in digests.items()}
    return {n: list(v) if isinstance(v, tuple) else v for n, v in fields.items()}


def _list_fields(papa: PapaSettings) -> dict[str, Any]:
    return dict(vars(papa))


def read_others(inputs: PapaInputs) -> dict[str, dict[int, AttentionSums]]:
    """Returns name -> sums of the work directories in `papa.constants_of`.

    Raises:
        FileError: one is missing, damaged, not complete, or of another encoder, layout
            or length.
    """
    found = {}
    own = inputs.identity
    identity = {name: own[name] for name in ("encoder", "layout", "length")}
    remedy = "papa.constants_of names analyses of the same encoder, layout and length"
    for text in inputs.papa.constants_of:
        folder = Path(text)
        path = folder / FILE_NAME
        stored = load_sums(path, identity, remedy)
        if not stored.is_complete:
            raise FileError(f"{path} is not complete: repeat its own command first")
        name = f"averages of {folder.name}"
        found[f"averages of {folder}" if name in found else name] = stored.by_rows
    return found


class _Steps:
    """The steps of one analysis; each reuses the files of earlier processes."""

    def __init__(
        self,
        inputs: PapaInputs,
        others: dict[str, dict[int, AttentionSums]],
        work: PapaWorkdir,
        quiet: bool,
    ) -> None:
        self._inputs, self._work, self._quiet = inputs, work, quiet
        self._papa, self._frozen = inputs.papa, inputs.frozen
        self._digest = work.training_digest
        # A random order of the training rows, whose first ones serve as few rows.
        rng = np.random.default_rng((inputs.settings.seed, 4))
        self._order = rng.permutation(inputs.train.num_rows)
        self._others = others
        self._constants: dict[str, np.ndarray] = {}
        self._seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        """Runs the remaining steps; returns papa.json."""
        sums = self._compute_sums()
        for kind in self._papa.constants:
            self._constants[kind] = make_constants(kind, sums.by_rows)
        for name, by_rows in self._others.items():
            self._constants[name] = make_constants("averages", by_rows)
        rankings = {name: self._rank(name) for name in self._papa.rankings}
        curves = self._list_curves(rankings)
        points = self._measure_points(curves)
        logger.info("writing the results")
        record = make_record(
            self._inputs,
            self._digest,
            curves,
            points,
            rankings,
            self._seconds,
        )
        # The page marks an analysis as finished, so an old one is removed first.
        (self._work.path / PAGE).unlink(missing_ok=True)
        write_json(self._work.path / RECORD, record)
        self._work.record(RECORD, FILE_NAME)
        shutil.rmtree(self._work.path / "checkpoints", ignore_errors=True)
        return record

    def plot_constants(self) -> Picture:
        """Returns a picture of the first kind of constants."""
        return plot_constants(self._constants[self._papa.constants[0]])

    def _compute_sums(self) -> StoredSums:
        """Returns the sums over all training rows, and over few where asked."""
        path = self._work.path / FILE_NAME
        identity, total = self._inputs.identity, len(self._order)
        wanted = {*find_row_numbers(self._papa.constants), total}
        stored = StoredSums({}, False, 0.0)
        if path.exists():
            remedy = "delete it, and the same command computes it again"
            stored = load_sums(path, identity, remedy)
            done = max(stored.by_rows)
            if not stored.by_rows.keys() >= {n for n in wanted if n <= done}:
                # A copy from an analysis that averages other numbers of rows.
                stored = StoredSums({}, False, 0.0)
        if not stored.is_complete:
            every = range(_ROWS_BETWEEN_SAVES, total, _ROWS_BETWEEN_SAVES)
            start = stored.seconds
            attention = AttentionPass(self._frozen, self._papa.rows_at_once)
            by_rows = stored.by_rows
            done = max(by_rows, default=0)
            with self._show("constants", total, "row") as progress:
                progress.start_at(done)
                for stop in sorted({*wanted, *every}):
                    if stop <= done:
                        continue
                    part = self._order[done:stop]
                    new = attention.run(self._inputs.train, part, progress.add)
                    by_rows[stop] = by_rows[done] + new if done else new
                    done = stop
                    kept = {
                        n: s for n, s in by_rows.items() if n in wanted or n == stop
                    }
                    seconds = start + progress.seconds
                    stored = StoredSums(kept, stop == total, seconds)
                    save_sums(path, identity, stored)
                    by_rows = kept
        self._seconds["constants"] = stored.seconds
        return stored

    def _rank(self, name: str) -> Float[np.ndarray, "I H"]:
        """Returns the scores of heads: the lowest becomes constant first."""
        path = self._work.path / "rankings" / f"{name}.json"
        digest = compute_digest({"analysis": self._digest, "ranking": name})
        if path.exists():
            try:
                found = checksums.read_sealed(path, "it is made again")
                if found.get("digest") == digest:
                    self._seconds[f"ranking by {name}"] = found["seconds"]
                    return np.array(found["scores"], np.float64)
            except FileError as error:
                logger.warning("%s", error)
        start = time.perf_counter()
        scores_IH = self._compute_ranking(name, digest)
        seconds = round(time.perf_counter() - start, 3)
        self._seconds[f"ranking by {name}"] = seconds
        path.parent.mkdir(exist_ok=True)
        content = {"digest": digest, "seconds": seconds, "scores": scores_IH.tolist()}
        checksums.write_sealed(path, content)
        return scores_IH

    def _compute_ranking(self, name: str, digest: str) -> Float[np.ndarray, "I H"]:
        frozen, papa, inputs = self._frozen, self._papa, self._inputs
        size = (frozen.num_layers, frozen.num_heads)
        if name == "random":
            return rank_at_random(*size, inputs.settings.seed)
        if name in ("bottom", "top"):
            return rank_by_place(*size, from_top=name == "top")
        constants = self._constants[papa.constants[0]]
        if name == "gates":
            return self._train_gates(constants, digest)
        rows = self._order[:_MEASURED_ROWS]
        with self._show(f"ranking by {name}", len(rows), "row") as progress:
            found = measure_heads(
                frozen, constants, inputs.train, rows, papa.rows_at_once, progress.add
            )
        return found[name]

    def _train_gates(
        self, constants: Float[np.ndarray, "I H L L"], digest: str
    ) -> Float[np.ndarray, "I H"]:
        """Returns lam of every head (section 5)."""
        papa, inputs = self._papa, self._inputs
        rates = {"probe": papa.learning_rate, "gates": papa.gate_learning_rate}
        fit = Fit(
            make_gates_loss(self._frozen, inputs.probe, papa.faithful_release),
            inputs.train,
            FitSettings(
                papa.batch_size,
                papa.ranking_epochs,
                rates,
                (inputs.settings.seed,),
                papa.checkpoint_every_steps,
                1,
            ),
        )
        init_fn = make_gates_init(self._frozen, inputs.probe, papa.length)
        state = self._train(
            fit,
            "gates",
            fit.make_state(init_fn, 1),
            jax.device_put(constants[None]),
            digest,
        )
        lam_IH = np.asarray(state.params["gates"], np.float64)[0, 0]
        shutil.rmtree(self._find_checkpoints(digest), ignore_errors=True)
        return lam_IH

    def _list_curves(self, rankings: dict[str, np.ndarray]) -> list[Curve]:
        """Returns all curves: each ranking, then each other kind of constants."""
        main = self._papa.rankings[0]
        kinds = list(self._constants)
        pairs = [(name, kinds[0]) for name in rankings]
        pairs += [(main, kind) for kind in kinds[1:]]
        orders = {name: sort_heads(scores) for name, scores in rankings.items()}
        return [
            Curve(
                name,
                kind,
                tuple(self._name_point(orders[name], kind, k) for k in self._numbers),
            )
            for name, kind in pairs
        ]

    @property
    def _numbers(self) -> tuple[int, ...]:
        return self._papa.constant_heads

    def _name_point(self, order_P: Int[np.ndarray, " P"], kind: str, k: int) -> Point:
        """Returns a point; points of equal heads and constants have one name."""
        dynamic_IH = keep_dynamic(order_P, k, self._frozen.num_heads)
        if k == 0:
            return Point("k0", 0, dynamic_IH, self._papa.constants[0])
        content = f"{kind} {np.packbits(dynamic_IH).tobytes().hex()}"
        mark = hashlib.sha256(content.encode()).hexdigest()[:8]
        return Point(f"k{k}-{mark}", k, dynamic_IH, kind)

    def _measure_points(self, curves: list[Curve]) -> dict[str, np.ndarray]:
        """Returns name -> logits [S, N, C] of every point."""
        points = {p.name: p for curve in curves for p in curve.points}
        found = {name: self._read_point(name) for name in points}
        open_points = [points[name] for name, logits in found.items() if logits is None]
        if open_points:
            measured = _PointMaker(self._inputs, open_points, self._constants)
            for group in measured.cut():
                logits = self._measure_group(measured, group)
                found |= logits
        return {name: logits for name, logits in found.items() if logits is not None}

    def _measure_group(
        self, maker: "_PointMaker", group: list[Point]
    ) -> dict[str, np.ndarray]:
        start = time.perf_counter()
        inputs, names = self._inputs, [point.name for point in group]
        title = "k = " + ", ".join(str(point.num_constant) for point in group)
        if len(group) > _MOST_IN_TITLE:
            title = f"{len(group)} points"
        digest = compute_digest({"analysis": self._digest, "points": names})
        heads = maker.make_heads(group)
        data: Any = heads
        if self._papa.states == "kept":
            total = len(group) * inputs.train.num_rows
            with self._show(f"{title}: states", total, "row") as progress:
                data = maker.states.keep(heads, inputs.train, progress.add)
        init_fn = make_probe_init(self._frozen, inputs.probe, self._papa.length)
        state = maker.fit.make_state(init_fn, len(group))
        state = self._train(maker.fit, f"{title}: probes", state, data, digest)
        del data
        total = len(group) * inputs.scored.num_rows
        with self._show(f"{title}: scores", total, "row") as progress:
            logits_PSNC = maker.states.score(
                state.params, heads, inputs.scored, progress.add
            )
        seconds = (time.perf_counter() - start) / len(group)
        folder = self._work.path / "points"
        folder.mkdir(exist_ok=True)
        for name, logits_SNC in zip(names, logits_PSNC, strict=True):
            self._seconds[name] = round(seconds, 3)
            arrays = {
                "logits": logits_SNC,
                "seconds": np.array(seconds),
                "digest": np.array(self._digest + name),
            }
            save_npz(folder / f"{name}.npz", arrays)
        shutil.rmtree(self._find_checkpoints(digest), ignore_errors=True)
        return dict(zip(names, logits_PSNC, strict=True))

    def _read_point(self, name: str) -> Float[np.ndarray, "S N C"] | None:
        """Returns the logits of a finished point; None if there are none."""
        path = self._work.path / "points" / f"{name}.npz"
        if not path.exists():
            return None
        shape = (
            len(self._papa.seeds),
            self._inputs.scored.num_rows,
            self._inputs.num_classes,
        )
        try:
            arrays = load_npz(path, _POINT, "it is made again")
            logits = arrays["logits"]
            if str(arrays["digest"]) != self._digest + name or logits.shape != shape:
                raise FileError(f"{path} is of another analysis: it is made again")
        except FileError as error:
            logger.warning("%s", error)
            return None
        self._seconds[name] = round(float(arrays["seconds"]), 3)
        return logits

    def _train(
        self, fit: Fit, title: str, state: FitState, data: Any, digest: str
    ) -> FitState:
        store = Checkpoints(self._find_checkpoints(digest), digest, keep=1)
        logger.info("%s: compiling", title)
        weights = jax.device_put(self._frozen.weights)
        with self._show(title, fit.num_steps, "step") as progress:
            return fit.run(
                state, data, weights, store, progress.reach, progress.start_at
            )

    def _find_checkpoints(self, digest: str) -> Path:
        return self._work.path / "checkpoints" / digest

    def _show(self, title: str, total: int, unit: str) -> Progress:
        return Progress(title, total, unit, self._quiet)


class _PointMaker:
    """What all points of an analysis share: compiled programs and the training."""

    def __init__(
        self,
        inputs: PapaInputs,
        points: list[Point],
        constants: dict[str, np.ndarray],
    ) -> None:
        papa, frozen = inputs.papa, inputs.frozen
        self._points, self._constants = points, constants
        loss_fn = make_kept_loss(inputs.probe)
        if papa.states == "streamed":
            loss_fn = make_streamed_loss(frozen, inputs.probe, papa.faithful_release)
        settings = FitSettings(
            papa.batch_size,
            papa.num_epochs,
            {"probe": papa.learning_rate},
            papa.seeds,
            papa.checkpoint_every_steps,
            _STEPS_PER_CALL[papa.states],
        )
        self.fit = Fit(loss_fn, inputs.train, settings)
        self.states = StatePass(frozen, inputs.probe, papa.rows_at_once)
        self._at_once = papa.points_at_once or len(points)
        if papa.states == "kept" and not papa.points_at_once:
            size = inputs.train.num_rows * (frozen.num_layers + 1) * papa.length
            fits = int(_KEPT_BYTES / (4 * size * frozen.features))
            self._at_once = min(max(fits, 1), len(points))

    def cut(self) -> list[list[Point]]:
        """Returns the points in groups that are trained in one program."""
        size = self._at_once
        return [self._points[i : i + size] for i in range(0, len(self._points), size)]

    def make_heads(self, group: list[Point]) -> Heads:
        """Returns the heads and constants of a group, with a leading axis P."""
        return Heads(
            np.stack([point.dynamic_IH for point in group]),
            np.stack([self._constants[point.constants] for point in group]),
        )
