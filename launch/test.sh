#!/usr/bin/env bash
# Lint, types and tests: launch/test.sh [--all] [pytest arguments ...]
#                        launch/test.sh --real [part ...]
#
# The default is the fast suite; --all runs the slow tests after it. --real, outside CI, holds the project against
# real servers and libraries, which it installs, and writes docs/real.md (tests/real). COEVO_TEST_WORKERS
# (default 3: some wait for others' answers) is the number of test processes.
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
types="$(mktemp)"  # checked beside the fast suite: it takes most of a minute of one core
"$bin/pyright" --pythonpath "$bin/python" >"$types" 2>&1 &
checking=$!
trap 'kill "$checking" 2>/dev/null || true; rm -f "$types"' EXIT

some=$([[ $# -gt 0 ]] && echo true || echo false)  # of the tests are asked for: a part may have none of them
# Every process would compile the tests and the package anew, a third of the time that it takes to find the tests.
export PYTHONDONTWRITEBYTECODE=

run_tests() {
    "$bin/python" -m pytest -n "${COEVO_TEST_WORKERS:-3}" "$@" || [[ $? == 5 && "$some" == true ]]  # 5: found none
}

# Compiling takes most of the fast suite's time, and the least of it gives the same numbers. Of the slow tests only
# those that hold numbers of users' programs against others' need these programs (tests/conftest.py).
# A flag that a version of XLA does not know would end it.
quick=""
for flag in --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false \
    --xla_cpu_parallel_codegen_split_count=1; do
    if JAX_PLATFORMS=cpu XLA_FLAGS="$flag" "$bin/python" -c 'import jax; jax.devices()' >/dev/null 2>&1; then
        quick+=" $flag"
    fi
done
failed=0
XLA_FLAGS="${XLA_FLAGS:-}$quick" JAX_OPTIMIZATION_LEVEL=O0 \
    run_tests --dist loadfile -m "not slow" "$@" || failed=$?  # a file shares fixtures
wait "$checking" || failed=$?
cat "$types"
((failed == 0)) || exit "$failed"
if "$all"; then
    # Every process imports the files of all tests: only those with a slow one.
    "$some" || mapfile -t files < <(grep -rlE --include='test_*.py' '\bmark\.slow\b' tests | LC_ALL=C sort)
    set -- "$@" ${files[@]+"${files[@]}"}
    XLA_FLAGS="${XLA_FLAGS:-}$quick" JAX_OPTIMIZATION_LEVEL=O0 \
        run_tests --dist worksteal --durations=40 -m "slow and not optimised" "$@"
    run_tests --dist worksteal --durations=20 -m "slow and optimised" "$@"
fi
