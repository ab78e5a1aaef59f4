#!/usr/bin/env bash
# Lint, types and tests: launch/test.sh [--all] [pytest arguments ...]
#                        launch/test.sh --real [part ...]
#
# The default is the fast suite; --all runs the slow tests after it. --real, outside CI, holds the project against
# real servers and libraries, which it installs, and writes docs/real.md (tests/real). COEVO_TEST_WORKERS
# (default 2) is the number of test processes.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
all=false
if [[ "${1:-}" == --all ]]; then
    all=true
    shift
fi

"$root/launch/setup.sh" requirements-dev.txt
bin="$(cd "${COEVO_VENV:-$root/.venv}/bin" && pwd)"
cd "$root"

if [[ "${1:-}" == --real ]]; then
    exec "$bin/python" -m tests.real "${@:2}"
fi

"$bin/ruff" check --quiet .
"$bin/ruff" format --quiet --check .
"$bin/pyright" --pythonpath "$bin/python"

run_tests() {
    "$bin/python" -m pytest -n "${COEVO_TEST_WORKERS:-2}" "$@"  # a file's tests share fixtures
}

# Compiling takes most of the fast suite's time, and the least of it gives the same numbers; the slow suite's
# programs are those that users run.
quick="--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
XLA_FLAGS="${XLA_FLAGS:-} $quick" run_tests --dist loadfile -m "not slow" "$@"
if "$all"; then
    run_tests --dist worksteal -m slow "$@"
fi
