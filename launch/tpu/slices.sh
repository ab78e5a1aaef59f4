# shellcheck shell=bash
# TPU slices by the name Cloud TPU gives them; v4, v5p and tpu7x count TensorCores, two a chip. Sourced after launcher.sh, never run.
# Sources: cloud.google.com/tpu/docs/v4, v5e, v5p, v6e, tpu7x; cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus

# name             hosts chips-per-host GKE-accelerator     topology
slice_table="
v5litepod-1        1     1              tpu-v5-lite-podslice 1x1
v5litepod-4        1     4              tpu-v5-lite-podslice 2x2
v5litepod-8        1     8              tpu-v5-lite-podslice 2x4
v5litepod-16       4     4              tpu-v5-lite-podslice 4x4
v5litepod-32       8     4              tpu-v5-lite-podslice 4x8
v5litepod-64       16    4              tpu-v5-lite-podslice 8x8
v5litepod-128      32    4              tpu-v5-lite-podslice 8x16
v5litepod-256      64    4              tpu-v5-lite-podslice 16x16
v6e-1              1     1              tpu-v6e-slice        1x1
v6e-4              1     4              tpu-v6e-slice        2x2
v6e-8              1     8              tpu-v6e-slice        2x4
v6e-16             4     4              tpu-v6e-slice        4x4
v6e-32             8     4              tpu-v6e-slice        4x8
v6e-64             16    4              tpu-v6e-slice        8x8
v6e-128            32    4              tpu-v6e-slice        8x16
v6e-256            64    4              tpu-v6e-slice        16x16
v4-8               1     4              tpu-v4-podslice      2x2x1
v4-16              2     4              tpu-v4-podslice      2x2x2
v4-32              4     4              tpu-v4-podslice      2x2x4
v4-64              8     4              tpu-v4-podslice      2x4x4
v4-128             16    4              tpu-v4-podslice      4x4x4
v4-256             32    4              tpu-v4-podslice      4x4x8
v4-512             64    4              tpu-v4-podslice      4x8x8
v5p-8              1     4              tpu-v5p-slice        2x2x1
v5p-16             2     4              tpu-v5p-slice        2x2x2
v5p-32             4     4              tpu-v5p-slice        2x2x4
v5p-64             8     4              tpu-v5p-slice        2x4x4
v5p-128            16    4              tpu-v5p-slice        4x4x4
v5p-256            32    4              tpu-v5p-slice        4x4x8
v5p-512            64    4              tpu-v5p-slice        4x8x8
tpu7x-8            1     4              tpu7x                2x2x1
tpu7x-16           2     4              tpu7x                2x2x2
tpu7x-32           4     4              tpu7x                2x2x4
tpu7x-64           8     4              tpu7x                2x4x4
tpu7x-128          16    4              tpu7x                4x4x4
tpu7x-256          32    4              tpu7x                4x4x8
tpu7x-512          64    4              tpu7x                4x8x8
"

# Set hosts, chips_per_host, accelerator and topology for --type.
# shellcheck disable=SC2034  # not every launcher needs all of them
read_slice() {
    local name names=() given="$1"
    while read -r name hosts chips_per_host accelerator topology; do
        [[ -n "$name" ]] || continue
        names+=("$name")
        [[ "$name" != "$given" ]] || return 0
    done <<<"$slice_table"
    [[ "$given" != v5e-* ]] || fail "--type: unknown slice '$given'$(nearest "v5litepod${given#v5e}" "${names[@]}")"
    fail "--type: unknown slice '$given'$(nearest "$given" "${names[@]}")"
}

# Say where the hosts of a slice need a shared folder.
warn_of_hosts() {
    ((hosts == 1)) || echo "warning: $1 has $hosts hosts, which need one run folder that all of them share" \
        "(runs_dir; docs/clusters.md)" >&2
}
