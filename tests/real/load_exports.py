"""Load exports with the transformers that is at hand, and hold them against what is known of them.

python load_exports.py FOLDER...: beside each lie FOLDER.npz (tokens and logits) and FOLDER.json (a text, its
ids, a prompt's). It needs PyTorch and transformers, and nothing of the project. One line of JSON a folder.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

MOST = 2e-4  # difference of logits in float32


def held(folder: Path) -> dict[str, object]:
    """What was seen of a folder.

    Raises:
      AssertionError: it is not what the export says.
    """
    stored, known = np.load(folder.with_suffix(".npz")), json.loads(folder.with_suffix(".json").read_text())
    model = AutoModelForCausalLM.from_pretrained(
        folder, torch_dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokens = torch.from_numpy(stored["tokens"]).long()
    with torch.no_grad():
        logits = model(tokens).logits.numpy()
    difference = float(np.abs(logits - stored["logits"]).max())
    assert difference < MOST, difference
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(known["text"], add_special_tokens=False)["input_ids"]
    assert ids == known["ids"], (ids, known["ids"])
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Count."}],
        tokenize=False,
        add_generation_prompt=True,
        date_string="26 Jul 2024",
    )
    found = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert found == known["prompt"], (found, known["prompt"])
    ends = model.generation_config.eos_token_id
    assert known["end"] in (ends if isinstance(ends, list) else [ends])
    written = model.generate(torch.tensor([found]), max_new_tokens=8, do_sample=False)
    assert written.shape[1] > len(found)
    return {"folder": folder.name, "logits": difference, "scale": float(np.abs(logits).max())}


if __name__ == "__main__":
    print("transformers", transformers.__version__, flush=True)
    for name in sys.argv[1:]:
        print(json.dumps(held(Path(name))), flush=True)
