#!/usr/bin/env bash
# A TPU slice on GKE, through JobSet: launch/tpu/gke.sh apply | manifest | logs | delete; --help says how.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../launcher.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launcher.sh"
# shellcheck source-path=SCRIPTDIR source=slices.sh
source "$(dirname "${BASH_SOURCE[0]}")/slices.sh"

usage() {
    cat <<'EOF'
usage: launch/tpu/gke.sh apply    --name NAME --type TYPE --image IMAGE --claim CLAIM [options] CONFIG [key=value ...]
       launch/tpu/gke.sh apply    --name NAME --type TYPE --image IMAGE --claim CLAIM [options] --resume RUN
       launch/tpu/gke.sh manifest (the same)
       launch/tpu/gke.sh logs | delete   --name NAME [--namespace NAMESPACE]

apply starts a JobSet made from launch/tpu/jobset.yaml, manifest prints it. The image is built from
launch/Dockerfile with requirements-tpu.txt; the volume of the claim keeps runs/, logs/ and the cache, so that a
restarted slice goes on with its run.

  --name NAME            of the JobSet
  --type TYPE            such as v5litepod-8, v6e-8, v5p-8 or tpu7x-8
  --image IMAGE          with a tag or digest
  --claim CLAIM          PersistentVolumeClaim of that namespace; read and written by all hosts of the slice
  --namespace NAMESPACE  default: default
  --spot                 on spot nodes
  --restarts N           of the whole slice, after a crash (default 20); after a preemption as often as needed
  --env KEY=VALUE        set in the environment of launch.train; may be given several times
  --dry-run              print what would be done, and do nothing
EOF
}

declare -A options=([name]="" [type]="" [image]="" [claim]="" [namespace]=default [spot]=false [restarts]=20)

json_string() { # YAML reads it as the very same text
    local text="${1//\\/\\\\}"
    text="${text//\"/\\\"}"
    printf '"%s"' "${text//$'\t'/\\t}"
}

json_list() {
    local word line=""
    for word in "$@"; do line+=", $(json_string "$word")"; done
    printf '[%s]' "${line#, }"
}

json_environment() { # KEY=VALUE...
    local setting line=""
    for setting in "$@"; do
        line+=", {\"name\": $(json_string "${setting%%=*}"), \"value\": $(json_string "${setting#*=}")}"
    done
    printf '[%s]' "${line#, }"
}

manifest() {
    local text key selector annotations="{}" command=(launch/host.sh --requirements requirements-tpu.txt
        --logs "logs/${options[name]}" "${train[@]}")
    selector="{\"cloud.google.com/gke-tpu-accelerator\": \"$accelerator\""
    selector+=", \"cloud.google.com/gke-tpu-topology\": \"$topology\""
    ! ${options[spot]} || selector+=', "cloud.google.com/gke-spot": "true"'
    # The pods of a slice of several hosts must not spread over two node pools of the same topology.
    ((hosts == 1)) || annotations='{"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}'
    local -A values=(
        [ANNOTATIONS]="$annotations" [NAME]="${options[name]}" [NAMESPACE]="$(json_string "${options[namespace]}")" [RESTARTS]="${options[restarts]}"
        [HOSTS]="$hosts" [CHIPS_PER_HOST]="$chips_per_host" [IMAGE]="$(json_string "${options[image]}")"
        [CLAIM]="$(json_string "${options[claim]}")" [NODE_SELECTOR]="$selector}" [COMMAND]="$(json_list "${command[@]}")"
        [ENVIRONMENT]="$(json_environment COEVO_CACHE=/coevo_jax/.cache "${environment[@]}")"
    )
    text="$(grep -v '^#' "$root/launch/tpu/jobset.yaml")"
    local filled="" # once through the text, so that a value that looks like a {{WORD}} stays what it is
    while [[ "$text" == *'{{'*'}}'* ]]; do
        filled+="${text%%'{{'*}"
        text="${text#*'{{'}"
        key="${text%%'}}'*}"
        [[ -n "${values[$key]+set}" ]] || fail "launch/tpu/jobset.yaml: unknown word {{$key}}"
        filled+="${values[$key]}"
        text="${text#*'}}'}"
    done
    printf '%s\n' "$filled$text"
}

action="${1:-}"
[[ "$action" != -h && "$action" != --help ]] || { usage; exit 0; }
[[ -n "$action" ]] || fail "give a command: apply, manifest, logs or delete"
check_choice "first argument" "$action" apply manifest logs delete
shift
parse_arguments "$@"
check_given name
check_name --name "${options[name]}"
check_namespace --namespace "${options[namespace]}"
select=("--namespace=${options[namespace]}" "--selector=jobset.sigs.k8s.io/jobset-name=${options[name]}")

case "$action" in
    apply | manifest)
        check_given type image claim
        check_volume --claim "${options[claim]}"
        check_number --restarts "${options[restarts]}" 0
        check_train
        read_slice "${options[type]}"
        warn_of_hosts "${options[type]}"
        filled="$(manifest)"
        if [[ "$action" == manifest ]]; then
            printf '%s\n' "$filled"
        elif $dry_run; then
            printf '%s\n' "kubectl apply --filename=- <<'EOF'" "$filled" EOF
        else
            run kubectl apply --filename=- <<<"$filled"
        fi
        ;;
    logs)
        ((${#train[@]} == 0)) || fail "logs: unexpected argument '${train[0]}'"
        run kubectl logs "${select[@]}" --prefix --tail=-1 --max-log-requests=256
        ;;
    delete)
        ((${#train[@]} == 0)) || fail "delete: unexpected argument '${train[0]}'"
        run kubectl delete jobset "${options[name]}" "--namespace=${options[namespace]}"
        ;;
esac
