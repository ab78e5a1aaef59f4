#!/usr/bin/env bash
# A job on a SLURM cluster with GPUs: launch/gpu/slurm.sh [options] CONFIG [key=value ...]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../launcher.sh
source "$(dirname "${BASH_SOURCE[0]}")/../launcher.sh"

usage() {
    cat <<'EOF'
usage: launch/gpu/slurm.sh --name NAME [options] CONFIG [key=value ...]
       launch/gpu/slurm.sh --name NAME [options] --resume RUN

Submits launch/gpu/job.sbatch: one process per node, which uses all GPUs that the job has there. The repository
lies on a file system that all nodes share. A job that is preempted, loses a node or nears its time limit is
queued again, and goes on with its run.

  --name NAME            of the job and its logs
  --nodes N              (default 1)
  --gpus N               on every node (default 1)
  --cpus N               on every node (default 8): environments run on them
  --memory SIZE          of every node, such as 64G (default: the partition's)
  --time LIMIT           such as 8:00:00 or 1-00:00:00, 5 minutes at least (default: the partition's)
  --partition PARTITION
  --account ACCOUNT
  --restarts N           starts after a crash, inside the job (default 0)
  --env KEY=VALUE        set in the environment of launch.train; may be given several times
  --dry-run              print what would be done, and do nothing
EOF
}

declare -A options=([name]="" [nodes]=1 [gpus]=1 [cpus]=8 [memory]="" [time]="" [partition]="" [account]=""
    [restarts]=0)
parse_arguments "$@"
check_given name
check_name --name "${options[name]}"
for number in nodes gpus cpus; do check_number "--$number" "${options[$number]}" 1; done
check_number --restarts "${options[restarts]}" 0
[[ -z "${options[time]}" ]] || check_time --time "${options[time]}"
check_train

submit=(sbatch "--job-name=${options[name]}" "--chdir=$root" "--nodes=${options[nodes]}" --ntasks-per-node=1
    "--gpus-per-node=${options[gpus]}" "--cpus-per-task=${options[cpus]}"
    "--output=$root/logs/${options[name]}/job-%j.log")
[[ -z "${options[memory]}" ]] || submit+=("--mem=${options[memory]}")
for name in time partition account; do
    [[ -z "${options[$name]}" ]] || submit+=("--$name=${options[$name]}")
done
submit+=("$root/launch/gpu/job.sbatch" --logs "logs/${options[name]}" --restarts "${options[restarts]}")
for setting in "${environment[@]}"; do submit+=(--env "$setting"); done

run mkdir -p "$root/logs/${options[name]}" # sbatch makes no folders
run "${submit[@]}" "${train[@]}"
