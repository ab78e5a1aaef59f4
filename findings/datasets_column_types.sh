#!/usr/bin/env bash
# datasets 5.2.0 gives a JSON file's values types of its own, and a Parquet file it writes shows other programs
# other values than it shows itself.
#
# Behaviour seen:
#   - text such as "2024-05-01" is read as a timestamp, not as text;
#   - an integer beyond 64 bits (an id, a hash) is read as a float, with other digits;
#   - where a key is text in one row and a list in another (OpenAI's `content`), the column becomes Json, and
#     to_parquet stores each value as JSON text: pyarrow and pandas read '"r"' with its quotes where datasets reads 'r'.
#
# Why it matters here: a chat set opened by pyarrow would train an agent to answer in quotes, and dates and ids would
# change between a file and a folder. So JSON files are read with Python's own reader, and a Parquet column's declared
# type decides (arrow.json is decoded).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1
cd "$folder"
cat > values.jsonl <<'ROWS'
{"day": "2024-05-01", "number": 36893488147419103235}
{"day": "2024-05-02", "number": 1}
ROWS
cat > chat.jsonl <<'ROWS'
{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]}
{"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "r"}]}
ROWS
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'CHECK'
import json

import datasets
import pyarrow.parquet as pq

datasets.disable_progress_bars()
values = datasets.load_dataset("json", data_files={"train": "values.jsonl"}, split="train")
chat = datasets.load_dataset("json", data_files={"train": "chat.jsonl"}, split="train")
chat.to_parquet("chat.parquet")
file = json.loads(open("values.jsonl").readline())
said = chat[0]["messages"][1]["content"]
stored = pq.read_table("chat.parquet").to_pylist()[0]["messages"][1]["content"]
print("version           ", datasets.__version__)
print("file: day         ", repr(file["day"]))
print("datasets: day     ", repr(values[0]["day"]))
print("file: number      ", repr(file["number"]))
print("datasets: number  ", repr(values[0]["number"]))
print("datasets: content ", repr(said))
print("pyarrow: content  ", repr(stored))
assert type(values[0]["day"]).__name__ == "datetime"
assert isinstance(values[0]["number"], float) and int(values[0]["number"]) != file["number"]
assert (said, stored) == ("r", '"r"')
CHECK
