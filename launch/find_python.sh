#!/usr/bin/env bash
# Prints the path of a Python that works, of one of the given versions, best first.
#
#     bash launch/find_python.sh 3.11 3.12
#
# A name on the PATH proves nothing (version managers leave shims that fail, systems
# ship a python3 without venv), so each candidate is run.
set -euo pipefail

(($#)) || { echo "find_python.sh: name the versions, e.g. 3.11 3.12" >&2; exit 2; }

# Prints sys.executable if the interpreter $1 is of version $2 and can make environments.
probe() {
    "$1" -c '
import sys, venv, ensurepip
if "%d.%d" % sys.version_info[:2] != sys.argv[1]:
    sys.exit(1)
print(sys.executable)' "$2" 2>/dev/null
}

for version in "$@"; do
    while read -r candidate; do
        # Kept back until it succeeds: a failing shim may print to stdout, too.
        if found=$(probe "$candidate" "$version"); then
            echo "$found"
            exit 0
        fi
    done < <(
        if [[ -n ${PYTHON:-} ]]; then
            type -P "$PYTHON" || true
        else
            type -ap "python$version" python3 python || true
            ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python || true
        fi 2>/dev/null
    )
done
if [[ -n ${PYTHON:-} ]]; then
    echo "PYTHON=$PYTHON is no working Python $* with venv: correct or unset it" >&2
else
    echo "no working Python $* with venv found: install one (on Debian and Ubuntu" \
        "python3 and python3-venv), or name it: PYTHON=/path/to/python" >&2
fi
exit 1
