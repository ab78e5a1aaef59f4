#!/usr/bin/env bash
# datasets 5.2.0 leaves files of a folder out, without a word, as soon as one file's name says a split.
#
# Behaviour seen: a folder of a.jsonl and b.jsonl gives both files' rows as the split train; the same folder with
# train.jsonl beside them gives train.jsonl's rows only, and nothing is said of the other two.
#
# Why it matters here: a set that grew by one file would be trained on without the rest. The reader here refuses a
# folder in which a data file belongs to no split, and names the file.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1
cd "$folder"
mkdir set
echo '{"id": 1}' > set/a.jsonl
echo '{"id": 2}' > set/b.jsonl
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 PYTHONWARNINGS=always "$folder/venv/bin/python" - 2> words <<'CHECK'
from pathlib import Path

import datasets

datasets.disable_progress_bars()
before = datasets.load_dataset("set")
Path("set/train.jsonl").write_text('{"id": 3}\n')
after = datasets.load_dataset("set")
print("version                 ", datasets.__version__)
print("a and b                 ", {name: rows["id"] for name, rows in before.items()})
print("a, b and train          ", {name: rows["id"] for name, rows in after.items()})
assert {name: list(rows["id"]) for name, rows in before.items()} == {"train": [1, 2]}
assert {name: list(rows["id"]) for name, rows in after.items()} == {"train": [3]}
CHECK
echo "said of the others       $(grep -ciE 'a\.jsonl|b\.jsonl' words || true) lines"
! grep -qiE 'a\.jsonl|b\.jsonl' words
