#!/usr/bin/env bash
# TPU VMs and pods through queued resources, from the request to the end of the run; --help says how.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../launcher.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launcher.sh"
# shellcheck source-path=SCRIPTDIR source=slices.sh
source "$(dirname "${BASH_SOURCE[0]}")/slices.sh"

usage() {
    cat <<'EOF'
usage: launch/tpu/vm.sh run    --name NAME --zone ZONE --type TYPE [options] CONFIG [key=value ...]
       launch/tpu/vm.sh run    --name NAME --zone ZONE --type TYPE [options] --resume RUN
       launch/tpu/vm.sh create --name NAME --zone ZONE --type TYPE [options]
       launch/tpu/vm.sh wait | logs | delete   --name NAME --zone ZONE [--project PROJECT]

run does everything: asks for the machine unless it is there, waits for it, copies this repository, starts
launch.train on every host, and asks for the machine again when it was preempted; the run then goes on where its
folder outlived the machine (--disk). It ends with launch.train's exit code and leaves the machine: delete it.

  --name NAME          of the queued resource, its node, and the logs
  --zone ZONE          such as us-central1-a
  --project PROJECT    default: gcloud's
  --type TYPE          such as v5litepod-8, v6e-8, v5p-8 or v4-8
  --runtime VERSION    software of the TPU VM; default: the one Google names for the type
  --spot               may be preempted, and costs less
  --reserved           from your reservation
  --disk DISK          an existing disk of that zone for runs/, logs/ and the cache; one host only
  --preemptions N      how often a preempted machine is asked for again (default 20)
  --restarts N         starts after a crash, on the same machine (default 0)
  --env KEY=VALUE      set in the environment of launch.train; may be given several times
  --dry-run            print what would be done, and do nothing
EOF
}

declare -A options=([name]="" [zone]="" [project]="" [type]="" [runtime]="" [spot]=false [reserved]=false
    [disk]="" [preemptions]=20 [restarts]=0)
poll_seconds="${COEVO_POLL_SECONDS:-30}"
archive=".cache/coevo_jax.tar.gz"

place=()
read_place() {
    check_given name zone
    check_name --name "${options[name]}"
    place=("${options[name]}" "--zone=${options[zone]}")
    [[ -z "${options[project]}" ]] || place+=("--project=${options[project]}")
}

read_machine() {
    check_given type
    read_slice "${options[type]}"
    warn_of_hosts "${options[type]}"
    [[ "${options[type]}" != tpu7x-* ]] || fail "--type: tpu7x has no queued resources; use launch/tpu/gke.sh or xpk.sh"
    if [[ -z "${options[runtime]}" ]]; then
        case "${options[type]}" in
            v5litepod-*) options[runtime]=v2-alpha-tpuv5-lite ;;
            v6e-*) options[runtime]=v2-alpha-tpuv6e ;;
            v5p-*) options[runtime]=v2-alpha-tpuv5 ;;
            v4-*) options[runtime]=tpu-ubuntu2204-base ;;
        esac
    fi
    ! { ${options[spot]} && ${options[reserved]}; } || fail "give either --spot or --reserved"
    [[ -z "${options[disk]}" ]] || ((hosts == 1)) ||
        fail "--disk: a disk that is written to serves one host, and ${options[type]} has $hosts"
}

create() {
    local disk request=(gcloud compute tpus queued-resources create "${place[@]}" "--node-id=${options[name]}"
        "--accelerator-type=${options[type]}" "--runtime-version=${options[runtime]}")
    ! ${options[spot]} || request+=(--spot)
    ! ${options[reserved]} || request+=(--reserved)
    if [[ -n "${options[disk]}" ]]; then
        disk="$(disk_path)" || return
        request+=("--data-disk=source=$disk,mode=read-write")
    fi
    run "${request[@]}"
}

disk_path() {
    local project="${options[project]}"
    if [[ "${options[disk]}" == projects/* ]]; then
        echo "${options[disk]}"
        return
    fi
    [[ -n "$project" ]] || fail "--disk needs --project, or the disk as projects/PROJECT/zones/ZONE/disks/DISK"
    echo "projects/$project/zones/${options[zone]}/disks/${options[disk]}"
}

queued_state() { # ACTIVE, WAITING_FOR_RESOURCES, ...; nothing where there is no such request
    gcloud compute tpus queued-resources describe "${place[@]}" '--format=value(state.state)' 2>/dev/null || true
}

node_state() { # READY, PREEMPTED, ...; nothing where the machine is gone
    gcloud compute tpus tpu-vm describe "${place[@]}" '--format=value(state)' 2>/dev/null || true
}

wait_until_active() { # 1 where the request failed, 75 where it is over or was deleted
    local state
    if $dry_run; then
        run gcloud compute tpus queued-resources describe "${place[@]}" '--format=value(state.state)'
        echo "# again every $poll_seconds s until it is ACTIVE"
        return
    fi
    while :; do
        state="$(queued_state)"
        echo "${options[name]}: ${state:-no such request}" >&2
        case "$state" in
            ACTIVE) return ;;
            FAILED) return 1 ;;
            "" | SUSPENDING | SUSPENDED | DELETING) return 75 ;;
        esac
        sleep "$poll_seconds"
    done
}

delete() {
    run gcloud compute tpus queued-resources delete "${place[@]}" --force --quiet
}

on_every_host() { # SHELL_COMMAND [FLAG...]
    local command="$1"
    shift
    run gcloud compute tpus tpu-vm ssh "${place[@]}" --worker=all --quiet "$@" "--command=$command"
}

copy_repository() {
    local files=(git -C "$root" ls-files -z --deduplicate --cached --others --exclude-standard)
    local pack=(tar -C "$root" --null --ignore-failed-read -T - -czf "$root/$archive")
    local copy=(gcloud compute tpus tpu-vm scp "$root/$archive" "${options[name]}:coevo_jax.tar.gz" "${place[@]:1}"
        --worker=all --quiet)
    run mkdir -p "$root/.cache" || return
    if $dry_run; then
        echo "$(quote "${files[@]}") | $(quote "${pack[@]}")"
    else
        "${files[@]}" | "${pack[@]}" || return
    fi
    run "${copy[@]}" && on_every_host "mkdir -p coevo_jax && tar -C coevo_jax -xzf coevo_jax.tar.gz"
}

start_on_hosts() {
    local prepare=(launch/tpu/prepare.sh) start=(launch/host.sh --requirements requirements-tpu.txt
        --logs "logs/${options[name]}" --restarts "${options[restarts]}") setting
    if [[ -n "${options[disk]}" ]]; then
        prepare+=(--disk)
        start+=(--env COEVO_CACHE=/mnt/coevo/cache)
    fi
    ((hosts == 1)) || start+=(--env COEVO_CLUSTER=gcetpu)
    for setting in "${environment[@]}"; do start+=(--env "$setting"); done
    on_every_host "cd coevo_jax && $(quote "${prepare[@]}") && $(quote "${start[@]}" "${train[@]}")"
}

was_lost() { # after an error: the machine, not the run, is at fault; a preemption shows within minutes
    local check
    for check in {1..6}; do
        [[ "$(node_state)" == READY && "$(queued_state)" == ACTIVE ]] || return 0
        ((check == 6)) || sleep "$poll_seconds"
    done
    return 1
}

# Nothing below stops at an error by itself: a function whose result is looked at runs without `set -e`.
attempt_run() { # one machine's life; 75 where it was lost, 76 where only the connection was
    local code=0
    if $dry_run || [[ -z "$(queued_state)" ]]; then
        create || return 1
    fi
    wait_until_active || return
    { copy_repository && start_on_hosts; } || code=$?
    ((code == 0 || code == 2)) && return "$code"
    was_lost && return 75
    ((code != 255)) || return 76
    return "$code"
}

run_job() {
    local code lost=0 cut=0
    while :; do
        code=0
        attempt_run || code=$?
        if ((code == 76 && ++cut <= options[preemptions])); then
            echo "${options[name]}: the connection was cut; coming back to it" >&2
        elif ((code != 75)); then
            return "$code"
        elif ((++lost > options[preemptions])); then
            echo "error: the machine was lost $lost times; give a larger --preemptions to go on" >&2
            return 1
        else
            echo "${options[name]}: the machine was lost ($lost of ${options[preemptions]}); asking again" >&2
            [[ -z "$(queued_state)" ]] || delete
        fi
    done
}

command="${1:-}"
[[ "$command" != -h && "$command" != --help ]] || { usage; exit 0; }
[[ -n "$command" ]] || fail "give a command: run, create, wait, logs or delete"
check_choice "first argument" "$command" run create wait logs delete
shift
parse_arguments "$@"
read_place
check_number --preemptions "${options[preemptions]}" 0
check_number --restarts "${options[restarts]}" 0
[[ "$command" == run ]] || ((${#train[@]} == 0)) || fail "$command: unexpected argument '${train[0]}'"

case "$command" in
    run) check_train; read_machine; [[ -z "${options[disk]}" ]] || disk_path >/dev/null; run_job ;;
    create) read_machine; create ;;
    wait)
        wait_until_active || {
            echo "error: ${options[name]}: the request came to nothing; delete it and create it again" >&2
            exit 1
        }
        ;;
    logs)
        run mkdir -p "$root/logs/${options[name]}"
        on_every_host "cat $(quote "coevo_jax/logs/${options[name]}")/*.log" "--output-directory=$root/logs/${options[name]}"
        ;;
    delete) delete ;;
esac
