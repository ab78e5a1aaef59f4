#!/usr/bin/env bash
# Create or update the virtual environment: launch/setup.sh [requirements file]
#
# The file is one of requirements.txt (default), requirements-gpu.txt, -tpu.txt, -dev.txt, -latest.txt. The environment is
# $COEVO_VENV, else .venv beside this repository's README; $PYTHON picks the interpreter it is made from.
# Installs only when the requirements changed. Safe to run twice, and from several shells at once.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
requirements="${1:-requirements.txt}"
venv="${COEVO_VENV:-$root/.venv}"

fail() {
    echo "setup: $*" >&2
    exit 1
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null && is_recent "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "needs Python 3.11 or newer; found $("${PYTHON:-python3}" --version 2>&1 || true). Set PYTHON to one."
}

[[ -f "$root/$requirements" ]] || fail "no such file: $root/$requirements (there are: $(cd "$root" && echo requirements*.txt))"
mkdir -p "$venv" || fail "cannot create the folder $venv"

# One installer at a time. The lock belongs to this shell's file descriptor, so it goes when the shell ends.
python="$(find_python)"
exec 9>"$venv/.lock"
"$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python has no venv module; on Debian or Ubuntu: apt-get install python3-venv"
    echo "setup: creating $venv with $("$python" --version)" >&2
    "$python" -m venv "$venv" 9>&-
fi
is_recent "$venv/bin/python" || fail "$venv holds a Python older than 3.11: remove it, or set COEVO_VENV to another folder"

stamp="$venv/.installed-$requirements"
hash="$(cat "$root/requirements.txt" "$root/$requirements" | "$venv/bin/python" -c \
    'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
if [[ "$(cat "$stamp" 2>/dev/null || true)" != "$hash" ]]; then
    echo "setup: installing $requirements into $venv (takes minutes the first time)" >&2
    rm -f "$stamp"
    # What is built from source may call `python`, which Debian itself has not.
    PATH="$venv/bin:$PATH" "$venv/bin/python" -m pip install -qq --disable-pip-version-check -r "$root/$requirements" 9>&- ||
        fail "pip could not install $requirements; the reason stands above"
    echo "$hash" >"$stamp"
fi
