#!/usr/bin/env bash
# Install what is needed and run co-evolution end to end: launch/quickstart.sh [config.yaml] [key=value ...]
#
# The default config is configs/quickstart.yaml. Arguments that begin with an option, such as --help, go to
# launch.train as they are.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
case "${1:-}" in
    *.yaml | -*) ;;
    *) set -- "$root/configs/quickstart.yaml" "$@" ;;
esac

"$root/launch/setup.sh" requirements.txt
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${COEVO_VENV:-$root/.venv}/bin/python" -m launch.train "$@"
