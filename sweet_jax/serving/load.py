"""Loads the classifier of a model folder or of an ONNX folder, on some backend."""

from pathlib import Path

from flax import linen as nn

from sweet_jax.devices import use_cache
from sweet_jax.engine.backend import Backend
from sweet_jax.engine.engine import (
    check_packages,
    check_precision,
    check_threads,
    make_backend,
)
from sweet_jax.serving.classifier import AdaptiveClassifier
from sweet_jax.serving.model_folder import (
    ModelFolderError,
    load_calibration,
    load_model_folder,
)
from sweet_jax.serving.onnx_folder import (
    is_onnx_folder,
    load_onnx_calibration,
    load_onnx_folder,
)
from sweet_jax.settings.registries import BACKENDS


def load(
    path: str | Path,
    batch_size: int = 32,
    backend: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
) -> AdaptiveClassifier:
    """Loads the model folder of a finished run (`WORKDIR/model`), or an ONNX folder.

    Args:
        path: the folder.
        batch_size: inputs per batch; predictions do not depend on it.
        backend: computes the segments: `jax`, `onnx`, or a registered backend. None:
            `onnx` for a folder that `sweet-jax export --onnx` wrote, else `jax`.
        precision: precision of backend `onnx`: `float32` or `int8`. None: that of the
            folder. Temperatures and thresholds hold for the precision in which they
            were chosen, so it must be that of the folder.
        threads: number of threads of backend `onnx`. None: all cores that the process
            may use.

    Raises:
        ModelFolderError: no such folder, a newer schema, a file missing or altered, or
            a folder of another backend or precision.
        ValueError: the batch size or the number of threads is not positive, or the
            backend or the precision is unknown or has no such choice.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: allowed is 1 or more")
    folder = Path(path)
    name = backend or ("onnx" if is_onnx_folder(folder) else "jax")
    BACKENDS.check_name(name)  # Before reading gigabytes.
    check_precision(name, precision)
    check_threads(name, threads)
    use_cache()
    if is_onnx_folder(folder):
        return _load_onnx(folder, batch_size, name, precision, threads)
    description, params = load_model_folder(folder)
    trained = description.dtype
    if name == "onnx" and (precision or "float32") != trained:
        raise ModelFolderError(
            f"{folder} was calibrated in {trained}, not in {precision or 'float32'}:"
            f" write a folder that is with sweet-jax export --onnx"
            f"{' --int8' if precision == 'int8' else ''} --model={folder} --out=FOLDER,"
            " and load that"
        )

    def make_segments(model: nn.Module) -> Backend:
        return make_backend(
            name,
            model,
            params,
            len(description.exit_layers),
            len(description.label_names),
            description.matmul_precision,
            precision,
            threads,
        )

    calibration = load_calibration(folder, description)
    return AdaptiveClassifier(
        folder, description, params, calibration, batch_size, make_segments
    )


def _load_onnx(
    folder: Path,
    batch_size: int,
    backend: str,
    precision: str | None,
    threads: int | None,
) -> AdaptiveClassifier:
    """Loads an ONNX folder; see `load`."""
    if backend != "onnx":
        raise ModelFolderError(
            f"{folder} has segments for ONNX Runtime: load it with backend=onnx, or"
            f" the model folder of the run with backend={backend}"
        )
    check_packages("onnxruntime")
    from sweet_jax.engine.onnx_backend import OnnxSegments

    description, models, part = load_onnx_folder(folder)
    if precision not in (None, part.precision):
        raise ModelFolderError(
            f"{folder} is of precision {part.precision}: load it without"
            f" precision={precision}, or a folder that was exported in that precision"
        )
    try:
        segments = OnnxSegments(models, len(description.label_names), threads)
    except ValueError as error:
        raise ModelFolderError(f"{folder} cannot be used: {error}") from error
    is_described = {*segments.precisions} == {part.precision}
    if not is_described or segments.has_lte != bool(description.lte_ranges):
        raise ModelFolderError(
            f"{folder} has segments of another precision or another model than its"
            " onnx.json and model.json describe: copy the folder again, or export the"
            " model again"
        )
    calibration = load_onnx_calibration(folder, description)
    return AdaptiveClassifier(
        folder, description, {}, calibration, batch_size, lambda model: segments
    )
