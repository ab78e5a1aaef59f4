#!/usr/bin/env bash
# A tokenizer that transformers 5.23.0 has saved cannot be loaded by transformers 4.57.6, where it has control tokens
# beside the named ones, as Qwen's has.
#
# Behaviour seen: 5 writes them into tokenizer_config.json as the list "extra_special_tokens"; 4 knows that key as a
# mapping and ends with AttributeError: 'list' object has no attribute 'keys'. The list's older name,
# "additional_special_tokens", is read by both. 5 also writes how the tokenizer was loaded ("is_local",
# "local_files_only", "backend"), and "tokenizer_class": "TokenizersBackend", a class that 4 has not.
#
# Why it matters here: an export is served by programs that pin transformers 4 (vLLM did for long; llama.cpp's converter
# takes either). save_tokenizer writes the older names and leaves out the rest.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 5.23.0 4.57.6; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet "transformers==$version" protobuf
done
"$folder/5.23.0/bin/python" - "$folder/saved" <<'SAVE'
import json, sys

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

made = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
made.add_special_tokens(["<|im_start|>", "<|im_end|>"])
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=made, unk_token="<unk>", extra_special_tokens=["<|im_start|>", "<|im_end|>"]
)
tokenizer.save_pretrained(sys.argv[1])
PreTrainedTokenizerFast.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])
written = json.load(open(f"{sys.argv[1]}/tokenizer_config.json"))
print("5.23.0 wrote", written)
assert written["extra_special_tokens"] == ["<|im_start|>", "<|im_end|>"]
assert {"is_local", "local_files_only", "backend"} <= written.keys()
SAVE
"$folder/4.57.6/bin/python" - "$folder/saved" <<'LOAD'
import json, sys

from transformers import PreTrainedTokenizerFast

try:
    PreTrainedTokenizerFast.from_pretrained(sys.argv[1])
except AttributeError as error:
    print("4.57.6:", error)
else:
    raise SystemExit("4.57.6 loads it: no longer so")
path = f"{sys.argv[1]}/tokenizer_config.json"
config = json.load(open(path))
config["additional_special_tokens"] = config.pop("extra_special_tokens")
json.dump(config, open(path, "w"))
print("4.57.6 by the older name:", PreTrainedTokenizerFast.from_pretrained(sys.argv[1]).all_special_tokens)
LOAD
