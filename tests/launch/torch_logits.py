"""Logits of exported folders under PyTorch: `python torch_logits.py OUT.npz TOKENS.npy NAME=FOLDER ...`.

Runs in an environment of its own. A folder with an adapter is loaded by PEFT, any other by transformers; the
tokenizer of each counts a text's tokens, so that a test sees it load.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = "Thought: one two three"


def load(folder: Path):
    if not (folder / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    from peft import AutoPeftModelForCausalLM

    return AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


out, tokens_path, *folders = sys.argv[1:]
tokens, results = torch.from_numpy(np.load(tokens_path)).long(), {}
for argument in folders:
    name, _, folder = argument.partition("=")
    model = load(Path(folder)).eval()
    with torch.no_grad():
        results[name] = model(tokens).logits.numpy()
    results[f"{name}/ids"] = np.array(AutoTokenizer.from_pretrained(folder)(TEXT)["input_ids"])
np.savez(out, **results)
