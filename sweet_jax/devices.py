"""The data-parallel mesh, placing arrays on it, compiling one program per shape."""

import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sweet_jax.arrays import Batch
from sweet_jax.system import caches, stopping
from sweet_jax.system.errors import describe_reason

logger = logging.getLogger(__name__)

# jax settings that a user's shell may set for other projects. Other values would change
# results (types, random numbers) or break compilation.
_JAX_SETTINGS = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_disable_jit": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_transfer_guard": "allow",
    "jax_transfer_guard_host_to_device": "allow",
    "jax_transfer_guard_device_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
}


def configure_jax(matmul_precision: str) -> None:
    """Sets jax's precision and cache, and resets settings meant for other projects.

    Raises:
        ValueError: JAX_PLATFORMS names a kind of device that jax does not find.
    """
    for name, value in _JAX_SETTINGS.items():
        if (set_value := getattr(jax.config, name)) not in (value, None):
            logger.warning("%s=%s is ignored", name.upper(), set_value)
            jax.config.update(name, value)
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(caches.find_cache() / "xla"))
    _keep_all_programs()
    precision = None if matmul_precision == "default" else matmul_precision
    jax.config.update("jax_default_matmul_precision", precision)
    check_devices()


def use_cache() -> None:
    """Keeps compiled programs on disk, if they can be written there.

    A cache that the program has set up stays as it is.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    directory = caches.find_cache() / "xla"
    # jax would warn once per program about a directory that it cannot write.
    if caches.try_folder(directory) is None:
        jax.config.update("jax_compilation_cache_dir", str(directory))
        _keep_all_programs()


def _keep_all_programs() -> None:
    """Sets jax's thresholds on seconds and bytes to 0.

    Otherwise each process would compile the many small programs of an evaluation again.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def check_devices() -> None:
    """Raises ValueError if jax finds no device of the requested kind."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        wanted = jax.config.jax_platforms  # type: ignore[attr-defined]
        raise ValueError(
            f"jax cannot use JAX_PLATFORMS={wanted} ({describe_reason(error)}): unset"
            " it, or install jax for that device"
        ) from error


def join_hosts() -> None:
    """Connects this process to the run's other hosts.

    jax finds them on TPU pods and under Slurm, Open MPI and Kubernetes. Elsewhere every
    host must set JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES
    and JAX_PROCESS_ID. CPU hosts communicate through gloo.

    Raises:
        ValueError: no other hosts are known, or they do not respond.
    """
    names = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    values = [os.environ[name] for name in names if name in os.environ]
    if not all(value.isdecimal() for value in values):
        raise ValueError(f"{' and '.join(names)} must be whole numbers, not {values}")
    count, index = map(int, values) if len(values) == 2 else (None, None)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(num_processes=count, process_id=index)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--multihost cannot join other hosts ({describe_reason(error)}):"
            " outside of TPU pods, Slurm, Open MPI and Kubernetes set"
            f" JAX_COORDINATOR_ADDRESS=host:port, {' and '.join(names)} on every host"
        ) from error
    # jax has replaced our handler of SIGTERM; its own makes all hosts stop after the
    # same step.
    stopping.share_sigterm()
    stopping.call_before_end(jax.distributed.shutdown)


def make_mesh(num_rows: int) -> Mesh:
    """Returns a mesh over the most devices that `num_rows` rows can be split over.

    The axes are Auto: with explicit axes optax's integer cross-entropy fails on jax
    0.12. A run on several hosts must use all devices.

    Raises:
        ValueError: on several hosts, the rows cannot be split over all devices.
    """
    devices = jax.devices()
    count = math.gcd(num_rows, len(devices))
    if jax.process_count() > 1 and count != len(devices):
        raise ValueError(
            f"train.batch_size / train.accumulate_steps = {num_rows} does not divide"
            f" over {len(devices)} devices of {jax.process_count()} hosts: choose a"
            f" multiple of {len(devices)}"
        )
    return jax.make_mesh(
        (count,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:count]
    )


def shard_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Puts a host batch on the mesh, its rows split over the devices.

    Every host has the whole batch (its order is a pure function of the seed) and puts
    on its own devices their rows.
    """
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return Batch(*(_from_all_hosts(np.asarray(x), sharding) for x in batch))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts a tree of host or device arrays on every device of the mesh."""
    sharding = NamedSharding(mesh, PartitionSpec())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def place(x: Any) -> jax.Array:
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = _from_all_hosts(np.asarray(jax.random.key_data(x)), sharding)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        return _from_all_hosts(np.asarray(x), sharding)

    return jax.tree.map(place, tree)


def is_first_host() -> bool:
    """Whether this process writes the files of the run."""
    return jax.process_index() == 0


def wait_for_hosts(name: str) -> None:
    """Waits until every host of the run has made this call."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def share_number(number: int) -> int:
    """Returns the first host's number, on every host."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def share_arrays(tree: Any) -> Any:
    """Returns the first host's tree of arrays, on every host.

    For what each host computes by itself, perhaps with other rounding errors.
    """
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def _from_all_hosts(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


Shape: TypeAlias = tuple[int, int]
# LLVM's level 3, XLA's default, takes longer for code that is no faster.
_LEVEL, _CPU_LEVEL = "xla_backend_optimization_level", 2


@dataclasses.dataclass(frozen=True)
class Program:
    """A function compiled for one batch shape.

    Attributes:
        call: the executable.
        flops: floating-point operations of a call, from XLA's cost analysis; 0 if the
            backend does not report them.
        temporary_bytes: XLA's temporaries on one device; 0 if not reported.
    """

    call: Callable[..., Any]
    flops: float
    temporary_bytes: int


class Programs:
    """A jitted function compiled once per batch shape, counted and timed.

    Attributes:
        by_shape: (rows, length) of a batch -> its program.
        seconds: spent in tracing and compiling so far, also together with others.
    """

    def __init__(self, jitted: Any) -> None:
        """Wraps a function made by `jax.jit`; nothing is compiled yet."""
        self._jitted = jitted
        self.by_shape: dict[Shape, Program] = {}
        self.seconds = 0.0

    def compile(self, shape: Shape, *args: Any) -> Program:
        """Returns the program of a batch shape, compiling it at its first use."""
        self.compile_all({shape: args})
        return self.by_shape[shape]

    def compile_all(self, args_by_shape: Mapping[Shape, tuple[Any, ...]]) -> None:
        """Compiles every shape that has no program yet; see `compile_together`."""
        compile_together({(self, s): args for s, args in args_by_shape.items()})

    def lower(self, *args: Any) -> Any:
        """Returns the function traced for these arguments."""
        return self._jitted.lower(*args)


def compile_together(
    work: Mapping[tuple[Programs, Shape], tuple[Any, ...]],
) -> float:
    """Compiles functions for shapes that have no program yet, one per core at a time.

    Much of a single XLA compilation runs on one thread. Tracing holds the GIL and
    compiling releases it, so the next function is traced while others compile.

    Args:
        work: (function, shape) -> arguments.

    Returns:
        The seconds that it took; `Programs.seconds` has an equal share of them for each
        new program.
    """
    new = [key for key in work if key[1] not in key[0].by_shape]
    if not new:
        return 0.0
    start = time.perf_counter()
    options = _choose_options()
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        compiling = [
            pool.submit(programs.lower(*work[programs, shape]).compile, options)
            for programs, shape in new
        ]
        compiled = [future.result() for future in compiling]
    finally:  # A stopped command does not wait for unfinished compilations.
        pool.shutdown(wait=False, cancel_futures=True)
    for (programs, shape), program in zip(new, compiled, strict=True):
        cost = program.cost_analysis() or {}
        memory = program.memory_analysis()
        programs.by_shape[shape] = Program(
            program,
            float(cost["flops"]) if "flops" in cost else 0.0,
            memory.temp_size_in_bytes if memory is not None else 0,
        )
    seconds = time.perf_counter() - start
    for programs, _ in new:
        programs.seconds += seconds / len(new)
    return seconds


def _choose_options() -> dict[str, int] | None:
    """Returns compiler options; a level that the user has set in XLA_FLAGS stays."""
    is_set = _LEVEL in os.environ.get("XLA_FLAGS", "")
    return (
        {_LEVEL: _CPU_LEVEL} if jax.default_backend() == "cpu" and not is_set else None
    )


def shape_of(batch: Batch) -> tuple[int, int]:
    """Returns (rows, length)."""
    rows, length = batch.token_ids.shape
    return rows, length
