#!/usr/bin/env bash
# Debian 13 with its Python 3.13 in a folder, and the default suite there: tests/real/python313.sh FOLDER [pytest args]
#
# Debian's debootstrap makes the folder a system of its own, in which requirements-latest.txt is installed. Needs root
# (for chroot), apt-get and a network. Mounts live in a namespace that ends with the command. It ends with
# the summary of pytest, after a line of versions.
set -euo pipefail

folder="$(mkdir -p "${1:?usage: python313.sh FOLDER [pytest arguments]}" && cd "$1" && pwd)"
shift
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
system="$folder/system"
mirror="$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)"

if [[ ! -e "$system/usr/bin/python3" ]]; then
    mkdir -p "$folder/debootstrap"
    (cd "$folder/debootstrap" && apt-get -qq download debootstrap && dpkg-deb --extract debootstrap_*.deb .)
    DEBOOTSTRAP_DIR="$folder/debootstrap/usr/share/debootstrap" "$folder/debootstrap/usr/sbin/debootstrap" \
        --variant=minbase --include=python3,python3-venv,python3-dev,build-essential,ca-certificates,git,procps \
        trixie "$system" "${mirror:-http://deb.debian.org/debian}"
fi
# The names and the certificates that this machine knows
cp /etc/resolv.conf /etc/hosts "$system/etc/"
cp /etc/ssl/certs/ca-certificates.crt "$system/etc/ssl/certs/"

mkdir -p "$system/coevo_jax"
git -C "$root" ls-files -z --cached --others --exclude-standard --deduplicate |
    tar -C "$root" --null --ignore-failed-read -T - -cf - | tar -C "$system/coevo_jax" --no-same-owner -xf -
cat >"$system/run.sh" <<'SCRIPT'
set -euo pipefail
cd /coevo_jax
export COEVO_VENV=/venv PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1
[[ -e .git ]] || { git init -q . && git add -A && git -c user.name=x -c user.email=x commit -qm x; } # some tests ask git
launch/setup.sh requirements-latest.txt
# What tests need beside; ALFWorld's planner serves nobody on 3.13.
grep -v -E '^(-r |torch|fast-downward)' requirements-dev.txt >/dev.txt
/venv/bin/pip install -q -r /dev.txt
torch="$(grep '^torch==' requirements-dev.txt)"
/venv/bin/python -c 'import torch' 2>/dev/null ||
    /venv/bin/pip install -q --index-url https://download.pytorch.org/whl/cpu "$torch" ||
    /venv/bin/pip install -q "$torch"
/venv/bin/python -c 'import jax, sys; print("versions:", sys.version.split()[0], "jax", jax.__version__)'
XLA_FLAGS=--xla_backend_optimization_level=0 exec /venv/bin/python -m pytest -m "not slow" "$@"
SCRIPT
# shellcheck disable=SC2016  # the inner shell expands them
exec unshare --mount bash -c '
    set -e
    mount -t proc proc "$1/proc"
    mount --rbind /dev "$1/dev"
    system="$1"
    shift
    exec chroot "$system" env -i HOME=/root PATH=/usr/bin:/bin:/usr/sbin LC_ALL=C.UTF-8 bash /run.sh "$@"
' bash "$system" "$@"
