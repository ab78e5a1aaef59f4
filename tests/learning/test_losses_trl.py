"""Every preference loss that TRL has agrees with TRL's own implementation, value and gradient.

TRL is installed for this test only, beside the PyTorch that is there. `pytest -s` prints the table of
deviations.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from coevo_jax.data.packing.length_weights import length_desensitised_weights
from coevo_jax.learning.loss_options import mixture, resolve_loss, with_divergence
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES, call_loss, wpo_weight
from tests.peers import peers_path

TRL = ("trl==1.16.0", "accelerate==1.15.0")
TOLERANCE = 1e-5
PAIRS, LENGTH = 7, 40
NOT_IN_TRL = {"dpop", "odpo"}
DIVERGENCES = {"forward_kl": "forward_kl", "js_divergence": "js", "alpha_divergence": "alpha"}
WITH_DIVERGENCE = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")
PLAIN = (
    *("sigmoid", "sigmoid_norm", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft"),
)


def dpo_cases() -> list[dict]:
    """TRL's DPOTrainer: its loss types, and what it combines them with."""
    cases = [{"loss": [name]} for name in PLAIN]
    cases += [{"loss": ["exo_pair"], "label_smoothing": e} for e in (1e-3, 0.1)]
    cases += [
        {"loss": [n], "label_smoothing": e} for n in ("robust", "aot", "aot_unpaired") for e in (0.1, 0.3)
    ]
    cases.append({"loss": ["discopop"], "discopop_tau": 0.5})
    for name, divergence in itertools.product(WITH_DIVERGENCE, DIVERGENCES):
        coefs = (0.5, 0.7) if divergence == "alpha_divergence" else (0.5,)
        smoothing = {"exo_pair": 1e-3, "robust": 0.1}.get(name, 0.0)
        for coef in coefs:
            cases.append(
                {"loss": [name], "divergence": divergence, "coef": coef, "label_smoothing": smoothing}
            )
    cases += [{"loss": [n], "ld_alpha": a} for n in ("sigmoid", "ipo", "hinge") for a in (0.0, 0.5)]
    cases += [{"loss": [name], "wpo": True} for name in ("sigmoid", "ipo", "apo_zero")]
    cases.append({"loss": ["sigmoid", "bco_pair", "sft"], "weights": [0.8, 0.2, 1.0]})
    return [{"trainer": "dpo", **case} for case in cases]


def other_cases() -> list[dict]:
    """The trainers beside it; CPO's `simpo` is SimPO without the NLL that TRL would add."""
    cpo = [{"cpo_alpha": a, "label_smoothing": e} for a in (1.0, 0.5) for e in (0.0, 0.1)]
    simpo = [{"loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": g} for g in (0.5, 1.5)]
    kto = [{}, {"desirable_weight": 1.5, "undesirable_weight": 0.5}]
    return (
        [{"trainer": "cpo", **case} for case in cpo + simpo]
        + [{"trainer": "orpo"}]
        + [{"trainer": "kto", **case} for case in kto]
    )


CASES = [
    {**case, "beta": beta, "data": data}
    for beta, data in ((0.1, "up"), (0.5, "down"))
    for case in dpo_cases() + other_cases()
]


def ours(case: dict):
    """The loss of this package that a case of TRL's stands for."""
    if case["trainer"] == "kto":
        return resolve_loss(
            "kto", {k: case[k] for k in ("desirable_weight", "undesirable_weight") if k in case}
        )
    if case["trainer"] == "orpo":
        return resolve_loss("orpo", {})
    if case.get("loss_type") == "simpo":
        return resolve_loss("simpo", {"gamma": case["simpo_gamma"]})
    if case["trainer"] == "cpo":
        return resolve_loss("cpo", {"alpha": case["cpo_alpha"], "label_smoothing": case["label_smoothing"]})
    parts = [resolve_loss(name, options(name, case)) for name in case["loss"]]
    if "divergence" in case:
        parts = [with_divergence(loss, DIVERGENCES[case["divergence"]], 1 - case["coef"]) for loss in parts]
    return mixture(list(zip(case.get("weights", [1.0]), parts, strict=True)))


def options(name: str, case: dict) -> dict[str, float]:
    found = {}
    if "label_smoothing" in case and name in ("exo_pair", "robust", "aot", "aot_unpaired"):
        found["label_smoothing"] = case["label_smoothing"]
    if name == "discopop" and "discopop_tau" in case:
        found["tau"] = case["discopop_tau"]
    return found


def our_loss(policy, case: dict, data: dict):
    """The mean over the pairs, from log-probabilities per token [2P, LENGTH]."""
    name = case["data"]
    mask = data[f"{name}_mask"][:, 1:]
    counts = mask.sum(axis=1)
    weights = mask.astype(np.float32)
    if "ld_alpha" in case:
        other = np.roll(counts, PAIRS)
        for row, (own, rest) in enumerate(zip(counts, other, strict=True)):
            weights[row, :own] = length_desensitised_weights(int(own), int(rest), case["ld_alpha"])
    tokens = jnp.asarray(counts, jnp.float32)
    logps = jnp.sum(weights * policy, axis=1)
    reference = jnp.sum(weights * data[f"{name}_reference"], axis=1)
    weight = jnp.full(PAIRS, 1.0 / PAIRS, jnp.float32)
    sides = (logps[:PAIRS], logps[PAIRS:], reference[:PAIRS], reference[PAIRS:])
    arrays = {"chosen_tokens": tokens[:PAIRS], "rejected_tokens": tokens[PAIRS:], "weight": weight}
    losses = call_loss(ours(case), sides, jnp.float32(case["beta"]), arrays)
    if case.get("wpo"):
        aligned = jnp.sum(mask * (policy - data[f"{name}_log_sum_sq"]), axis=1) / tokens
        losses *= wpo_weight(aligned[:PAIRS], aligned[PAIRS:], limit=None)
    return jnp.sum(weight * losses)


def make_data() -> dict[str, np.ndarray]:
    """Rows of log-probabilities per token: PAIRS chosen, then PAIRS rejected, of unequal lengths.

    All are multiples of 2^-10, so that their sums are exact in float32: the order in which tokens are added
    is not what is compared here, and forward KL would blow it up exponentially.
    """
    data = {}
    for name, seed, drift in (("up", 0, 0.05), ("down", 1, -0.05)):  # of the policy from the reference
        rng = np.random.default_rng([seed])
        lengths = rng.integers(3, LENGTH + 1, 2 * PAIRS)
        mask = np.arange(LENGTH)[None, :] < lengths[:, None]
        reference = -rng.gamma(1.0, 1.2, (2 * PAIRS, LENGTH)) - 0.05
        policy = np.minimum(reference + rng.normal(drift, 0.6, reference.shape), -0.01)
        data[f"{name}_policy"] = np.where(mask, _rounded(policy), 0.0).astype(np.float32)
        data[f"{name}_reference"] = np.where(mask, _rounded(reference), 0.0).astype(np.float32)
        data[f"{name}_log_sum_sq"] = -rng.gamma(1.0, 1.0, mask.shape).astype(np.float32)
        data[f"{name}_mask"] = np.concatenate([np.zeros((2 * PAIRS, 1), bool), mask], axis=1).astype(np.int64)
    return data


def _rounded(logps: np.ndarray) -> np.ndarray:
    return np.round(logps * 1024) / 1024


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> tuple[dict[str, np.ndarray], list[dict]]:
    folder = tmp_path_factory.mktemp("cases")
    data = make_data()
    np.savez(folder / "data.npz", **data)
    (folder / "cases.json").write_text(json.dumps(CASES))
    script = Path(__file__).parent / "trl_losses.py"
    files = [folder / "data.npz", folder / "cases.json", folder / "out.json"]
    command = [sys.executable, script, *files]
    environment = os.environ | peers_path(tmp_path_factory, *TRL)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return data, json.loads((folder / "out.json").read_text())["cases"]


@pytest.mark.slow
def test_values_and_gradients_agree_with_trl(theirs):
    data, results = theirs
    worst: dict[str, tuple[float, float]] = {}
    for case, result in zip(CASES, results, strict=True):
        policy = jnp.asarray(data[f"{case['data']}_policy"])
        value, grad = jax.value_and_grad(our_loss)(policy, case, data)
        expected = np.asarray(result["grad"], np.float32)
        off = abs(float(value) - result["value"]) / abs(result["value"])
        # Entry by entry: one pair's gradient may be a million times another's under forward KL. DiscoPOP's
        # changes sign near a margin of 0, a difference of larger terms that no float32 has to 1e-5.
        floor = (1e-2 if "discopop" in case.get("loss", ()) else 1e-6) * np.max(np.abs(expected))
        grad_off = float(np.max(np.abs(grad - expected) / np.maximum(np.abs(expected), floor)))
        name = label(case)
        before = worst.get(name, (0.0, 0.0))
        worst[name] = (max(before[0], off), max(before[1], grad_off))
    for name, (off, grad_off) in worst.items():
        print(f"{name:45s} value {off:.1e}  gradient {grad_off:.1e}")
    assert {n: w for n, w in worst.items() if not max(w) <= TOLERANCE} == {}


def label(case: dict) -> str:
    extras = {"divergence", "ld_alpha", "wpo", "loss_type"} & set(case)
    return " ".join(
        [case["trainer"], "+".join(case.get("loss", [])), *(f"{k}={case[k]}" for k in sorted(extras))]
    )


def test_every_loss_is_compared_or_known_to_be_ours_alone():
    compared = {term.name for case in CASES for term in ours(case).terms}
    assert compared | NOT_IN_TRL == set(PREFERENCE_LOSSES) and not compared & NOT_IN_TRL
