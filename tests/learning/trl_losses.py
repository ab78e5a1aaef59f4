"""Run TRL's own losses on given log-probabilities; for an environment that has TRL and PyTorch, not JAX.

Usage: python trl_losses.py data.npz cases.json out.json

Every case runs the loss method of a TRL trainer as it stands in the package. Only what surrounds it is made
up: a model whose per-token log-probabilities are the given ones, and an accelerator of one process.
"""

import json
import sys
from collections import defaultdict
from types import SimpleNamespace

import numpy as np
import torch
import trl
from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

ONE_PROCESS = SimpleNamespace(
    device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x, unwrap_model=lambda x: x
)


class TokenModel(torch.nn.Module):
    """A model that answers with the given log-probabilities; a row of token ids begins with its index."""

    is_gradient_checkpointing = False

    def __init__(self, token_logps, log_sum_sq_probs):
        super().__init__()
        self.token_logps, self.log_sum_sq_probs = token_logps, log_sum_sq_probs

    def forward(self, input_ids=None, attention_mask=None, labels=None, fused_lm_head=False, use_cache=False):
        rows = input_ids[:, 0]
        logps = self.token_logps[rows] * (
            labels[:, 1:] != -100
        )  # TRL's fused head leaves 0 where no label is
        zeros = torch.zeros_like(logps)
        return SimpleNamespace(
            log_probs=logps,
            log_sum_sq_probs=self.log_sum_sq_probs[rows],
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros > 0,
        )


class TwoWordModel(torch.nn.Module):
    """The same for trainers that read logits: a vocabulary of two, where the label is always word 0."""

    def __init__(self, token_logps):
        super().__init__()
        self.token_logps = token_logps

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        logps = self.token_logps
        logits = torch.stack([logps, torch.log(-torch.expm1(logps.clamp(max=-1e-6)))], dim=-1)
        last = torch.zeros_like(logits[:, :1])  # predicts what follows the row's end
        return SimpleNamespace(logits=torch.cat([logits, last], dim=1))


def trainer_of(kind, model, settings):
    """A trainer with the attributes its loss reads, and none of the set-up of a training run."""
    trainer = kind.__new__(kind)
    common = {
        "model": model,
        "accelerator": ONE_PROCESS,
        "aux_loss_enabled": False,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_stored_metrics": defaultdict(lambda: defaultdict(list)),
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "_peft_has_been_casted_to_bf16": False,
        "is_encoder_decoder": False,
    }
    for name, value in {**common, **settings}.items():
        setattr(trainer, name, value)
    return trainer


def dpo(model, reference, mask, case):
    settings = {
        "loss_types": case["loss"],
        "loss_weights": case.get("weights", [1.0] * len(case["loss"])),
        "beta": case["beta"],
        "ref_model": reference,
        "precompute_ref_logps": False,
        "ld_alpha": case.get("ld_alpha"),
        "f_divergence_type": case.get("divergence", "reverse_kl"),
        "f_alpha_divergence_coef": case.get("coef", 0.5),
        "label_smoothing": case.get("label_smoothing", 0.0),
        "use_weighting": case.get("wpo", False),
        "args": SimpleNamespace(
            discopop_tau=case.get("discopop_tau", 0.05), gradient_checkpointing_kwargs=None
        ),
    }
    trainer = trainer_of(DPOTrainer, model, settings)
    return trainer.compute_loss(
        model, {"input_ids": ids(mask), "attention_mask": mask, "completion_mask": mask}
    )


def kto(model, reference, mask, case):
    pairs = len(mask) // 2
    other = (torch.arange(2 * pairs) + pairs) % (
        2 * pairs
    )  # the mismatched completion: the pair's other side
    settings = {
        "loss_type": "kto",
        "beta": case["beta"],
        "ref_model": reference,
        "precompute_ref_logps": False,
        "calculate_KL": True,
        "desirable_weight": case.get("desirable_weight", 1.0),
        "undesirable_weight": case.get("undesirable_weight", 1.0),
        "args": SimpleNamespace(gradient_checkpointing_kwargs=None),
    }
    inputs = {
        "input_ids": ids(mask),
        "attention_mask": mask,
        "completion_mask": mask,
        "KL_input_ids": ids(mask)[other],
        "KL_attention_mask": mask[other],
        "KL_completion_mask": mask[other],
        "label": torch.arange(2 * pairs) < pairs,
    }
    return trainer_of(KTOTrainer, model, settings).compute_loss(model, inputs)


def from_logits(kind, model, mask, settings):
    """CPO and ORPO: the label of every completion token is word 0."""
    pairs = len(mask) // 2
    labels = torch.where(mask > 0, 0, -100)
    attention = mask.clone()
    attention[:, 0] = 1  # the one token of the prompt
    batch = {"prompt_input_ids": torch.zeros(pairs, 1, dtype=torch.long)}
    for side, rows in (("chosen", slice(0, pairs)), ("rejected", slice(pairs, None))):
        batch[f"{side}_input_ids"] = torch.zeros_like(labels[rows])
        batch[f"{side}_attention_mask"] = attention[rows]
        batch[f"{side}_labels"] = labels[rows]
    both = {"pad_token_id": 0, "padding_value": 0, "args": SimpleNamespace(device=torch.device("cpu"))}
    return trainer_of(kind, model, {**both, **settings}).compute_loss(model, batch)


def cpo(token_logps, mask, case):
    settings = {
        "loss_type": case.get("loss_type", "sigmoid"),
        "beta": case["beta"],
        "label_smoothing": case.get("label_smoothing", 0.0),
        "cpo_alpha": case.get("cpo_alpha", 1.0),
        "simpo_gamma": case.get("simpo_gamma", 0.5),
        "alpha": 0.0,
    }
    return from_logits(CPOTrainer, TwoWordModel(token_logps), mask, settings)


def ids(mask):
    """Token ids whose first one is the row's index."""
    rows = torch.zeros(mask.shape, dtype=torch.long)
    rows[:, 0] = torch.arange(len(mask))
    return rows


def run(case, data):
    """The loss and its gradient with respect to every token's log-probability [2P, T - 1]."""
    given = {
        name: torch.from_numpy(data[f"{case['data']}_{name}"]) for name in ("policy", "reference", "mask")
    }
    token_logps, mask = given["policy"].requires_grad_(), given["mask"]
    concentration = torch.from_numpy(data[f"{case['data']}_log_sum_sq"])
    model = TokenModel(token_logps, concentration)
    reference = TokenModel(given["reference"], concentration)
    if case["trainer"] == "dpo":
        loss = dpo(model, reference, mask, case)
    elif case["trainer"] == "kto":
        loss = kto(model, reference, mask, case)
    elif case["trainer"] == "cpo":
        loss = cpo(token_logps, mask, case)
    else:
        loss = from_logits(ORPOTrainer, TwoWordModel(token_logps), mask, {"beta": case["beta"]})
    loss.backward()
    return {"value": loss.item(), "grad": token_logps.grad.tolist()}


def main(data_path, cases_path, out_path):
    torch.set_num_threads(1)
    data = dict(np.load(data_path))
    with open(cases_path) as file:
        cases = json.load(file)
    results = {
        "trl": trl.__version__,
        "torch": torch.__version__,
        "cases": [run(case, data) for case in cases],
    }
    with open(out_path, "w") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
