#!/usr/bin/env bash
# The main job on a fresh machine: installs what is missing, then trains, measures and
# reports on the embedded encoder and task.
#
#     bash launch/local.sh [--config.section.field=value ...] [--workdir=runs/name]
#
# Relative paths in the arguments are relative to the repository.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash launch/install.sh
exec "${VENV:-.venv}/bin/python" -m sweet_jax.main --config=configs/sweet.py "$@"
