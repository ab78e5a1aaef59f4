#!/usr/bin/env bash
# The study on a real backbone, on one GPU: launch/gpu/study.sh [options] [key=value ...]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../launcher.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launcher.sh"

usage() {
    cat <<'EOF2'
usage: launch/gpu/study.sh [options] [key=value ...]

Installs requirements-gpu.txt and runs launch.study on configs/study/qwen3-0.6b-*.yaml, one run after the other on one
GPU, for as long as --hours says. What is under way then commits and ends; the same command goes on.

  --gpu N          the GPU that it uses (default 0)
  --seeds N|A:B    as of launch.study (default 3)
  --hours H        end after so many hours (default 6)
  --dry-run        print what would be done, and do nothing
EOF2
}

declare -A options=([gpu]=0 [seeds]=3 [hours]=6)
parse_arguments "$@"
check_number --gpu "${options[gpu]}" 0
check_number --hours "${options[hours]}" 1
[[ "${options[seeds]}" =~ ^([0-9]+:)?[0-9]+$ ]] || fail "--seeds: found '${options[seeds]}', expected a number such as 3, or 3:5"
for word in "${train[@]}"; do
    [[ "$word" == *=* ]] || fail "found '$word', expected overrides such as model.path=FOLDER: the configs are given"
done
if ! $dry_run && ! nvidia-smi --list-gpus >/dev/null 2>&1; then
    fail "no NVIDIA GPU here (nvidia-smi finds none); on CPUs: python -m launch.study configs/study/sql-*.yaml"
fi

cd "$root"
venv="${COEVO_VENV:-$root/.venv}"
run "$root/launch/setup.sh" requirements-gpu.txt
code=0
run env "PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 "CUDA_VISIBLE_DEVICES=${options[gpu]}" \
    "$gpu_memory" "${environment[@]}" timeout --foreground --signal=TERM "${options[hours]}h" \
    "$venv/bin/python" -m launch.study configs/study/qwen3-0.6b-*.yaml \
    --seeds "${options[seeds]}" --jobs 1 --all-cores "${train[@]}" || code=$?
case "$code" in
124 | 143) printf 'stopped after %s hours; the same command goes on\n' "${options[hours]}" ;;
esac
exit "$code"
