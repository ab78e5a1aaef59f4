#!/usr/bin/env bash
# This machine, with all its GPUs or those of --gpus: launch/gpu/machine.sh [options] CONFIG [key=value ...]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../launcher.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launcher.sh"

usage() {
    cat <<'EOF'
usage: launch/gpu/machine.sh [options] CONFIG [key=value ...]
       launch/gpu/machine.sh [options] --resume RUN

Installs requirements-gpu.txt and runs launch.train in one process that uses every GPU the mesh asks for. The same
command, given again, goes on with the run.

  --gpus LIST      such as 0,2: the GPUs it may see (default: all)
  --logs FOLDER    where the log is kept, as FOLDER/host-NAME.log (default: logs)
  --restarts N     start again after a crash, N times at most (default 0)
  --env KEY=VALUE  set in the environment of launch.train; may be given several times
  --dry-run        print what would be done, and do nothing
EOF
}

declare -A options=([gpus]="" [logs]=logs [restarts]=0)
parse_arguments "$@"
check_number --restarts "${options[restarts]}" 0
check_train
if [[ -n "${options[gpus]}" ]]; then
    [[ "${options[gpus]}" =~ ^[0-9]+(,[0-9]+)*$ ]] || fail "--gpus: found '${options[gpus]}', expected numbers such as 0,2"
    environment+=("CUDA_VISIBLE_DEVICES=${options[gpus]}")
fi
if ! $dry_run && ! nvidia-smi --list-gpus >/dev/null 2>&1; then
    fail "no NVIDIA GPU here (nvidia-smi finds none); on a CPU: ./launch/quickstart.sh ${train[*]:1}"
fi

start=("$root/launch/host.sh" --requirements requirements-gpu.txt --logs "${options[logs]}" --restarts
    "${options[restarts]}")
for setting in "${environment[@]}"; do start+=(--env "$setting"); done
run "${start[@]}" "${train[@]}"
