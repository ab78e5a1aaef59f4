#!/usr/bin/env bash
# On a TPU VM, before launch/host.sh: Python 3.11 and, with --disk, the folders that outlive the machine.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../launcher.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launcher.sh"

usage() {
    cat <<'EOF'
usage: launch/tpu/prepare.sh [--disk] [--dry-run]

Makes a virtual environment with Python 3.11, which images of TPU VMs lack (uv brings one). Safe to run twice.

  --disk     mount the machine's data disk at /mnt/coevo and keep runs/ and logs/ on it; an empty disk gets a file system
  --dry-run  print what would be done, and do nothing
EOF
}

# shellcheck disable=SC2034  # read by parse_arguments
declare -A options=([disk]=false)
parse_arguments "$@"
((${#train[@]} == 0)) || fail "unexpected argument '${train[0]}'"
mount_point=/mnt/coevo

find_disk() { # the one whole disk that carries neither partitions nor a mounted file system
    local name type found=()
    if $dry_run; then
        echo /dev/DATA_DISK
        return
    fi
    while read -r name type; do
        [[ "$type" == disk && "$(lsblk -nro NAME "$name" | wc -l)" == 1 ]] || continue
        [[ -z "$(lsblk -nro MOUNTPOINT "$name")" ]] && found+=("$name")
    done < <(lsblk -dnpro NAME,TYPE)
    ((${#found[@]} == 1)) || fail "--disk: expected one unmounted disk without partitions, found ${#found[@]}: ${found[*]:-none}"
    echo "${found[0]}"
}

if ${options[disk]} && ! mountpoint -q "$mount_point"; then
    disk="$(find_disk)"
    if $dry_run; then
        echo "# where that disk holds nothing yet:"
        run sudo mkfs.ext4 -q -m 0 "$disk"
    else
        signatures="$(sudo wipefs --no-act --noheadings "$disk")"  # fails where it cannot tell
        [[ -n "$signatures" ]] || run sudo mkfs.ext4 -q -m 0 "$disk"
    fi
    run sudo mkdir -p "$mount_point"
    run sudo mount -o discard,defaults "$disk" "$mount_point"
    run sudo chown "$(id -u):$(id -g)" "$mount_point"
fi
if ${options[disk]}; then
    for folder in runs logs; do
        run mkdir -p "$mount_point/$folder"
        [[ -L "$root/$folder" || ! -d "$root/$folder" ]] || fail "--disk: $root/$folder is a folder of its own; move it away"
        run ln -sfn "$mount_point/$folder" "$root/$folder"
    done
fi

venv="${COEVO_VENV:-$root/.venv}"
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    if ! command -v python3.11 >/dev/null; then
        run python3 -m pip install --quiet --user uv==0.13.8
        run "$HOME/.local/bin/uv" python install --quiet 3.11
    fi
    python=python3.11
    command -v python3.11 >/dev/null || $dry_run || python="$("$HOME/.local/bin/uv" python find 3.11)"
    run "$python" -m venv "$venv"
fi
