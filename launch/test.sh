#!/usr/bin/env bash
# The tests on a fresh machine: installs what is missing, then runs pytest.
#
#     bash launch/test.sh                          # the default suite
#     bash launch/test.sh tests/test_trees.py -n 0 # one file, without worker processes
#     bash launch/test.sh -m slow                  # by marker, see pyproject.toml
#
# A file's tests stay in one worker process: they share compiled functions. Files keep their
# order: sorted by numbers of tests, the few long ones would come last, one after the other.
set -euo pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bash launch/install.sh dev
exec "${VENV:-.venv}/bin/python" -m pytest -n 2 --dist=loadfile --no-loadscope-reorder "$@"
