"""Write a trained model as a folder that runs without this package.

    python -m sweet_jax export --model=RUN/model --out=FOLDER

The folder has a program for each segment, the weights, the tokenizer and a loader that
needs jax alone (docs/export.md). Exit status: 0 written, 2 a wrong input.
"""

from pathlib import Path

from absl import flags

from sweet_jax.commands.flags import run_command
from sweet_jax.system import process, stopping

_MODEL = flags.DEFINE_string("model", None, "WORKDIR/model of a run.", required=True)
_OUT = flags.DEFINE_string("out", None, "The folder to write.", required=True)
_PYTORCH = flags.DEFINE_bool("pytorch", False, "Write a part for PyTorch, too.")


def main() -> int:
    """Runs the command; returns the exit status."""
    # Imported here: a wrong flag is reported before jax loads.
    from sweet_jax.devices import check_devices
    from sweet_jax.export.folder import export_folder

    check_devices()
    done = export_folder(Path(_MODEL.value), Path(_OUT.value), _PYTORCH.value)
    stopping.finish(0)  # The same command would refuse to write again.
    process.say(done)
    return 0


if __name__ == "__main__":
    run_command(main)
