"""A 24-layer train step: how long it compiles, and what rematerialisation costs.

Nothing runs: FLOPs and temporaries are XLA's own analysis of the compiled step. XLA can
compile for a TPU where there is none (`pip install "jax[tpu]"` for its compiler), which
matters here: its CPU compiler drops the barriers that keep a recomputation behind the
layers whose memory it is to reuse, so rematerialisation saves nothing on a CPU.
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
from sweet_jax.settings.resolve import from_config_dict
from sweet_jax.training.methods import make_members
from sweet_jax.training.optimizer import make_optimizer
from sweet_jax.training.state import TrainState, make_train_step

_ROWS, _LENGTH = 16, 128
_TOPOLOGY = "v5e:2x2"  # The smallest that is compiled for; the step uses one chip.


def measure_large() -> None:
    """Prints a row per method for this machine's own device."""
    _print_table("this device", None)


def measure_large_tpu() -> None:
    """Prints a row per method as compiled for one chip of a TPU that is not here."""
    # Read by the compiler's library: there is no metadata server to ask.
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
    """Returns the compiled step of a method with one model; no array is filled."""
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
