"""A 24-layer train step: compile time, and the cost of rematerialisation.

Nothing runs: FLOPs and temporary memory come from XLA's analysis of the compiled step.
XLA can compile for a TPU without having one (`pip install "jax[tpu]"` for its
compiler). This matters, because XLA's CPU compiler removes the barriers that delay
recomputation, so rematerialisation saves no memory on a CPU.
"""

import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Sharding, SingleDeviceSharding
from measuring import print_header, print_row
from shapes import make_bert_attributes, make_random_batch

from sweet_jax.devices import Programs, shape_of
from sweet_jax.huggingface.config import make_encoder, parse_config
from sweet_jax.models.init import compute_shapes
from sweet_jax.models.multi_exit import MultiExitClassifier, find_segment
from sweet_jax.settings.fields import default_exit_layers
from sweet_jax.settings.from_config import from_config_dict
from sweet_jax.training.methods import make_members
from sweet_jax.training.optimizer import make_optimizer
from sweet_jax.training.state import TrainState, make_train_step

_ROWS, _LENGTH = 16, 128
_TOPOLOGY = "v5e:2x2"  # Smallest supported; uses one chip.


def measure_large() -> None:
    """Prints one row per method, for the device of this machine."""
    _print_table("this device", None)


def measure_large_tpu() -> None:
    """Prints one row per method, compiled for one TPU chip, which need not exist."""
    # For libtpu, which would otherwise ask a metadata server.
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_ACCELERATOR_TYPE="v5litepod-4",
    )
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(_TOPOLOGY, platform="tpu")
    device = topology.devices[0]
    _print_table(f"one {device.device_kind}", SingleDeviceSharding(device))


def _print_table(
    where: str,
    sharding: Sharding | None,
    num_layers: int = 24,
    width: int = 1024,
) -> None:
    print_header(
        f"train step, {_ROWS} x {_LENGTH}, BERT {num_layers} x {width}, {where}",
        "remat",
        "compile s",
        "GFLOP",
        "temporaries MB",
    )
    for method in ("sweet", "early_exit"):
        for remat in (False, True):
            programs = compile_step(method, remat, num_layers, width, sharding)
            (program,) = programs.by_shape.values()
            print_row(
                method,
                remat,
                f"{programs.seconds:.0f}",
                f"{program.flops / 1e9:.0f}",
                f"{program.temporary_bytes / 1e6:.0f}",
            )


def compile_step(
    method: str,
    remat: bool,
    num_layers: int,
    width: int,
    sharding: Sharding | None = None,
) -> Programs:
    """Returns the compiled step of a method with one model; allocates no arrays."""
    config = parse_config(make_bert_attributes(num_layers, width))
    settings = from_config_dict({"method": method})
    layers = default_exit_layers(num_layers)
    model = MultiExitClassifier(
        encoder=make_encoder(config, num_layers, jnp.float32, remat),
        exit_layers=layers,
        exit_numbers=tuple(range(len(layers))),
        num_classes=2,
        features=width,
        settings=settings.exits,
    )
    params = compute_shapes(model)
    (member,) = make_members(settings, len(layers))
    find = functools.partial(find_segment, exit_layers=layers)
    phase = member.phases[0]
    optimizer = make_optimizer(settings.optim, params, phase.trainable, find, 100)
    step: Any = jax.ShapeDtypeStruct((), jnp.int32)
    state = TrainState(step, params, jax.eval_shape(optimizer.init, params))
    batch = make_random_batch(_ROWS, _LENGTH, config.vocab_size)
    arguments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        (state, batch, jax.random.key(1)),
    )
    programs = Programs(
        jax.jit(
            make_train_step(model, phase.objectives[0], optimizer), donate_argnums=0
        )
    )
    programs.compile(shape_of(batch), *arguments)
    return programs
