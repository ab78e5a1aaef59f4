#!/usr/bin/env bash
# A TPU slice on GKE, through XPK, which writes the JobSet itself: launch/tpu/xpk.sh create | list | delete; --help.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../launcher.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launcher.sh"
# shellcheck source-path=SCRIPTDIR source=slices.sh
source "$(dirname "${BASH_SOURCE[0]}")/slices.sh"

usage() {
    cat <<'EOF'
usage: launch/tpu/xpk.sh create --name NAME --cluster CLUSTER --type TYPE --image IMAGE [options] CONFIG [key=value ...]
       launch/tpu/xpk.sh create --name NAME --cluster CLUSTER --type TYPE --image IMAGE [options] --resume RUN
       launch/tpu/xpk.sh delete --name NAME --cluster CLUSTER [--project PROJECT] [--zone ZONE]

For clusters made by XPK (pip install xpk); on others, launch/tpu/gke.sh does the same. The image is built from
launch/Dockerfile with requirements-tpu.txt. XPK restarts a workload that was preempted (exit codes 42 and 127 to
255) and takes a crash or a refusal as final; only a --storage outlives the pods.

  --name NAME        of the workload
  --cluster CLUSTER  as XPK knows it
  --type TYPE        such as v5litepod-8, v6e-8, v5p-8 or tpu7x-8
  --image IMAGE      with a tag or digest
  --storage STORAGE  one that `xpk storage attach` mounts at /coevo_jax/runs; the logs and the cache go there, too
  --project PROJECT  default: gcloud's
  --zone ZONE        default: gcloud's
  --spot             let autoprovisioning use spot nodes
  --restarts N       (default 20)
  --env KEY=VALUE    set in the environment of launch.train; may be given several times
  --dry-run          print what would be done, and do nothing
EOF
}

declare -A options=([name]="" [cluster]="" [type]="" [image]="" [storage]="" [project]="" [zone]="" [spot]=false
    [restarts]=20)

action="${1:-}"
[[ "$action" != -h && "$action" != --help ]] || { usage; exit 0; }
[[ -n "$action" ]] || fail "give a command: create or delete"
check_choice "first argument" "$action" create delete
shift
parse_arguments "$@"
check_given name cluster
check_name --name "${options[name]}"
place=("--cluster=${options[cluster]}")
[[ -z "${options[project]}" ]] || place+=("--project=${options[project]}")
[[ -z "${options[zone]}" ]] || place+=("--zone=${options[zone]}")

if [[ "$action" == delete ]]; then
    ((${#train[@]} == 0)) || fail "delete: unexpected argument '${train[0]}'"
    run xpk workload delete "--workload=${options[name]}" "${place[@]}"
    exit
fi

check_given type image
check_number --restarts "${options[restarts]}" 0
check_train
read_slice "${options[type]}"
# XPK 1.16 builds a slice of eight chips of two machines (ct5lp-hightpu-4t, ct6e-standard-4t), not of one of eight.
case "${options[type]}" in v5litepod-8 | v6e-8) hosts=2 ;; esac
warn_of_hosts "${options[type]}"
[[ ! "${options[type]}" =~ ^v5litepod-[14]$ ]] || fail "--type: XPK knows no ${options[type]}; use launch/tpu/gke.sh"
start=(launch/host.sh --requirements requirements-tpu.txt)
create=(xpk workload create "--workload=${options[name]}" "${place[@]}" "--tpu-type=${options[type]}" --num-slices=1
    "--docker-image=${options[image]}" "--max-restarts=${options[restarts]}"
    --termination-grace-period-seconds=120)
! ${options[spot]} || create+=(--spot)
if [[ -n "${options[storage]}" ]]; then
    create+=("--storage=${options[storage]}" --env=COEVO_CACHE=/coevo_jax/runs/.cache)
    start+=(--logs "runs/.logs/${options[name]}")
else
    start+=(--logs "logs/${options[name]}")
fi
for setting in "${environment[@]}"; do create+=("--env=$setting"); done
run "${create[@]}" "--command=$(quote "${start[@]}" "${train[@]}")"
