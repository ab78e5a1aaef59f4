"""Greedy tokens of an exported folder under PyTorch: `python torch_generate.py OUT.npz FOLDER JOB.json`.

Runs in an environment of its own. The job is {"texts": [token ids, ...], "count": n}: every text is read
alone and whole, as without a cache between turns. Also saves the two best scores of every choice.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

out, folder, job_path = sys.argv[1:]
job = json.loads(Path(job_path).read_text())
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokens, best = [], []
for text in job["texts"]:
    ids = torch.tensor([text])
    with torch.inference_mode():
        made = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=job["count"],
            min_new_tokens=job["count"],
            do_sample=False,
            pad_token_id=0,
            output_scores=True,
            return_dict_in_generate=True,
        )
    tokens.append(made.sequences[0, ids.shape[1] :].numpy())
    best.append(np.stack([step[0].topk(2).values.numpy() for step in made.scores]))
np.savez(out, tokens=np.stack(tokens), best=np.stack(best))
