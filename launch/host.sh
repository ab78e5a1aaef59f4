#!/usr/bin/env bash
# What every launcher starts on every host: launch/host.sh [options] CONFIG [key=value ...]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=launcher.sh
source "$(dirname "${BASH_SOURCE[0]}")/launcher.sh"

usage() {
    cat <<'EOF'
usage: launch/host.sh [options] CONFIG [key=value ...]
       launch/host.sh [options] --resume RUN

Installs what is missing, runs launch.train and appends what it says to this host's log. A config's run is gone
on with where its folder exists. A signal that ends this script reaches launch.train.

  --requirements FILE  requirements.txt (default), requirements-gpu.txt or requirements-tpu.txt
  --logs FOLDER        where the log of this host is kept: FOLDER/host-ID.log (default: logs)
  --restarts N         start again after a crash, N times at most (default 0); a refusal (exit code 2) is final
  --env KEY=VALUE      set in the environment of launch.train; may be given several times
  --dry-run            print what would be done, and do nothing
EOF
}

# shellcheck disable=SC2034  # read by parse_arguments
declare -A options=([requirements]=requirements.txt [logs]=logs [restarts]=0)
parse_arguments "$@"
mapfile -t files < <(cd "$root" && printf '%s\n' requirements*.txt)
check_choice --requirements "${options[requirements]}" "${files[@]}"
check_number --restarts "${options[restarts]}" 0
check_train

# The number of this host as its platform tells it, else its name.
id="${COEVO_PROCESS_ID:-${SLURM_PROCID:-${JOB_COMPLETION_INDEX:-${TPU_WORKER_ID:-$(hostname)}}}}"
log="${options[logs]}/host-$id.log"
venv="${COEVO_VENV:-$root/.venv}"
[[ "${options[requirements]}" != requirements-gpu.txt ]] || environment=("$gpu_memory" "${environment[@]}")
command=(env "PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 "${environment[@]}"
    "$venv/bin/python" -m launch.train "${train[@]}")

if $dry_run; then
    run "$root/launch/setup.sh" "${options[requirements]}"
    run mkdir -p "${options[logs]}"
    printf '%s 2>&1 | tee -a %s\n' "$(quote "${command[@]}")" "$(quote "$log")"
    exit 0
fi

cd "$root"
mkdir -p "${options[logs]}" || fail "cannot create the folder ${options[logs]}"
# The log outlives signals to the whole group, and a connection that is cut: tee ignores both.
exec 3> >(trap '' TERM INT HUP USR1; exec tee -p -a "$log")
tee_process=$!
stopped=false
child=""

# shellcheck disable=SC2317,SC2329  # called by the trap
stop() {
    stopped=true
    [[ -z "$child" ]] || kill -TERM "$child" 2>/dev/null || true
}
trap stop TERM INT USR1

start() { # a command in the background, so that signals are heard; its exit code
    local code=0
    $stopped && return 143
    "$@" >&3 2>&3 3>&- 9>&- &
    child=$!
    while :; do
        code=0
        wait "$child" || code=$?
        kill -0 "$child" 2>/dev/null || break  # a signal ends `wait`, too
    done
    child=""
    return "$code"
}

say() {
    echo "host $id, $(date -u +%FT%TZ): $*" >&3
}

train_until_done() {
    local attempt code
    for ((attempt = 0; ; attempt++)); do
        say "$(quote "${command[@]}")"
        code=0
        start "${command[@]}" || code=$?
        say "exit code $code"
        ((code == 0 || code == 2 || attempt >= options[restarts])) && return "$code"
        start sleep "$((attempt < 5 ? 2 ** attempt : 30))" || return "$code"
    done
}

# One at a time: a launcher that lost its connection comes back while its first call still trains.
exec 9>"$log.lock"
if ! flock -n 9; then
    say "this host still works on an earlier call; waiting for it (its words are in $log)"
    start flock "$log.lock" true || exit $?
    flock 9
fi

code=0
start "$root/launch/setup.sh" "${options[requirements]}" || code=$?
if ((code == 0)); then
    train_until_done || code=$?
fi
exec 3>&-
for _ in {1..50}; do  # what launch.train left behind may hold the log open
    kill -0 "$tee_process" 2>/dev/null || break
    sleep 0.1
done
exit "$code"
