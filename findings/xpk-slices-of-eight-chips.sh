#!/usr/bin/env bash
# XPK 1.16.0 makes the slices v5litepod-8 and v6e-8 of two machines of four chips; under the same names, Cloud TPU's
# VMs are one machine of eight.
#
# Behaviour seen: for --tpu-type=v6e-8 XPK's table has 2 VMs a slice of 4 chips each (ct6e-standard-4t), and its
# workload gets parallelism 2; the same for v5litepod-8 (ct5lp-hightpu-4t). The types with four chips a slice or
# less are one machine, and v5litepod-1 and v5litepod-4 are no types at all. With `gcloud compute tpus tpu-vm` the
# type v6e-8 is one host that sees all eight chips (cloud.google.com/tpu/docs/v6e).
#
# Why it matters here: two hosts need one run folder that both see, one host needs none. launch/tpu/xpk.sh says so for
# these two types, and launch/tpu/vm.sh does not.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet xpk==1.16.0
"$folder/venv/bin/python" - <<'CHECK'
from importlib.metadata import version

from xpk.core.system_characteristics import get_system_characteristics_by_device_type

print("version", version("xpk"))
found = {}
for name in ("v5litepod-1", "v5litepod-4", "v6e-4", "v5litepod-8", "v6e-8", "v5p-8"):
    known, code = get_system_characteristics_by_device_type(name)
    found[name] = (known.vms_per_slice, known.chips_per_vm, known.gce_machine_type) if known else None
    print(f"{name:12} VMs a slice, chips a VM, machine: {found[name]}")
assert found["v6e-8"][:2] == found["v5litepod-8"][:2] == (2, 4)
assert found["v6e-4"][:2] == found["v5p-8"][:2] == (1, 4)
assert found["v5litepod-1"] is None and found["v5litepod-4"] is None
CHECK
