#!/usr/bin/env bash
# Install what is needed and run co-evolution end to end: launch/quickstart.sh [config.yaml] [key=value ...]
#
# The default config is configs/quickstart.yaml. Everything else is passed on to launch.train.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
config="$root/configs/quickstart.yaml"
if [[ "${1:-}" == *.yaml ]]; then
    config="$1"
    shift
fi

"$root/launch/setup.sh" requirements.txt
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${COEVO_VENV:-$root/.venv}/bin/python" -m launch.train "$config" "$@"
