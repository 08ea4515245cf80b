#!/usr/bin/env bash
# Makes the virtual environment of this repository and installs the pinned packages.
#
#     bash launch/install.sh [dev] [reference]
#
#     dev               also what the tests and checks need
#     reference         also PyTorch, the oracle of the reference tests
#     PYTHON=python3.12 the interpreter to use; else the first of 3.11 to 3.14 that works
#     VENV=.venv        the folder of the environment, relative to the repository
#
# Repeating it is quick: a stamp in the environment says for which contents of the
# requirement files each group was installed. An environment whose installation was
# interrupted is made anew, since pip takes a half-copied package for an installed one.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
cd -- "$root"
venv=${VENV:-.venv}

for group in "$@"; do
    case $group in
    dev | reference) ;;
    *)
        echo "install.sh: unknown group '$group': allowed are dev and reference" >&2
        exit 2
        ;;
    esac
done

# Two launches at once would install into the same folder: the second waits. (macOS has
# no flock; there a person must wait.)
if command -v flock >/dev/null; then
    exec 9<requirements.txt
    flock 9
fi

find_python() { bash launch/find_python.sh 3.11 3.12 3.13 3.14; }

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# True if the environment was made whole, for this folder (an environment cannot move),
# no installation broke off, it runs, and it has the version asked for.
venv_is_good() {
    [[ -f $venv/made && $(<"$venv/made") == "$root" ]] || return 1
    [[ ! -e $venv/installing ]] || return 1
    version_of "$venv/bin/python" >/dev/null 2>&1 || return 1
    [[ -z ${PYTHON:-} ]] ||
        [[ $(version_of "$venv/bin/python") == "$(version_of "$python")" ]]
}

python=""
if [[ -n ${PYTHON:-} ]]; then
    python=$(find_python)
fi
if ! venv_is_good; then
    [[ -n $python ]] || python=$(find_python)
    # --clear below empties the folder: one that a person named must be an environment.
    if [[ -n ${VENV:-} && -e $venv && ! -f $venv/pyvenv.cfg ]] &&
        [[ -n $(ls -A -- "$venv") ]]; then
        echo "install.sh: $venv exists and is no environment: move it away or set VENV" >&2
        exit 1
    fi
    echo "Making $venv with Python $(version_of "$python") ($python)"
    "$python" -m venv --clear "$venv"
    echo "$root" >"$venv/made"
fi

pip_install() { "$venv/bin/python" -m pip install -qq --no-input "$@"; }

# Installs the group $1 unless it already is, for the contents of the files that follow.
install_group() {
    local group=$1 stamp=$venv/installed-$1 wanted started=$SECONDS
    shift
    wanted=$(cat -- "$@" | cksum)
    if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        return
    fi
    echo "Installing into $venv: $group (minutes the first time)"
    touch "$venv/installing"
    "install_$group"
    echo "$wanted" >"$stamp"
    rm -- "$venv/installing"
    echo "Installed $group in $((SECONDS - started)) s"
}

install_core() {
    pip_install -r requirements.txt
    pip_install --no-deps --require-hashes -r requirements-embedded.txt
    pip_install --no-deps -e .
}
install_dev() { pip_install -r requirements-dev.txt; }
install_reference() { pip_install -r requirements-reference.txt; }

install_group core requirements.txt requirements-embedded.txt pyproject.toml
for group in "$@"; do
    install_group "$group" requirements.txt "requirements-$group.txt"
done
