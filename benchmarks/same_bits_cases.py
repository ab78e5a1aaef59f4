"""The runs that `benchmarks.same_bits` makes on both checkouts: one config each, in both forms."""

from dataclasses import dataclass
from typing import Literal

Form = Literal["old", "new"]

# Everything but the method: a toy environment, a tiny model, every checkpoint kept.
SHARED = """\
name: run
rounds: 2
env: {name: letters}
tokenizer: {vocab_size: 300}
model: {hidden_size: 32, num_layers: 2, num_heads: 2, num_kv_heads: 2, head_dim: 16, intermediate_size: 64}
batch: {rows: 4, row_length: 128, views_per_row: 4, pairs: 32}
warm_start: {tasks: "0:40", epochs: 12, learning_rate: 1e-2}
explore: {tasks: ["40:60", "60:80"], samples: 2, temperature: 1.0, block_tasks: 7}
rollout: {slots: 4, max_tokens: 128, max_turn_tokens: 24, decode_block: 16}
evaluate: {split: dev}
checkpoint: {every_steps: 3, keep: all}
"""
TARGET = "beta: [0.5, 0.3], learning_rate: [1e-3, 5e-4], epochs: 2"
FAILURE = "beta: [0.1], learning_rate: [1e-3], epochs: 2, sft_reduction: sum"
PAIRS = """\
  pairs:
    expert_target: {dpo: 0.5, sft: 0.5}
    expert_failure: {dpo: 0.5, sft: 0.5}
    failure_failure: {dpo: 0.5, sft: 0.0}
"""
OF_TARGET = "  beta: [0.5, 0.3]\n  learning_rate: [1e-3, 5e-4]\n  epochs: 2\n"
OF_FAILURE = """\
failure:
  pairs:
    failure_failure: {dpo: 0.5, sft: 0.5}
  beta: [0.1]
  learning_rate: [1e-3]
  epochs: 2
  sft_reduction: sum
"""
ALONE = "failure: {explore: false}\n"
QUICKSTART = (
    "rounds=1",
    "name=run",
    "warm_start.tasks=0:60",
    "warm_start.epochs=2",
    "explore.tasks=['600:640']",
    "evaluate.tasks=0:20",
    "checkpoint.keep=all",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run. Without a text it is `config`, a file of the checkout."""

    old: str = ""  # what defines the method, in the words of the form with `target` and `failure`
    new: str = ""  # the same with `recipe` and `agents`
    lora: bool = False
    config: str | None = None
    overrides: tuple[str, ...] = ()
    module: str = "tests.letters_train"

    def text(self, form: Form) -> str:
        """The whole config in one of the forms."""
        base = SHARED
        if self.lora:
            base = base.replace("intermediate_size: 64}", "intermediate_size: 64, lora: {rank: 4, alpha: 8}}")
        return base + (self.old if form == "old" else self.new)


def _learning(recipe: str, *agents: str) -> str:
    return f"recipe: {recipe}\nagents: {{{', '.join(agents)}}}\n"


_BOTH = {
    "old": f"target:\n{PAIRS}{OF_TARGET}{OF_FAILURE}",
    "new": _learning("coevo", f"target: {{{TARGET}}}", f"failure: {{{FAILURE}}}"),
}
CASES = {
    "coevo": Case(**_BOTH),
    "eto": Case(
        old=f"target:\n  pairs: {{expert_target: {{dpo: 0.5, sft: 0.5}}}}\n{OF_TARGET}{ALONE}",
        new=_learning("eto", f"target: {{{TARGET}}}"),
    ),
    "rft": Case(
        old=f"target:\n  sft_successes: 1.0\n{OF_TARGET}{ALONE}",
        new=_learning("rft", f"target: {{{TARGET}}}"),
    ),
    "sft-more": Case(
        old=f"target:\n  sft_experts: 1.0\n{OF_TARGET}{ALONE}",
        new=_learning("sft-more", f"target: {{{TARGET}}}"),
    ),
    "frozen-failure": Case(
        old=f"target:\n{PAIRS}{OF_TARGET}failure: {{learn: false}}\n",
        new=_learning("frozen-failure", f"target: {{{TARGET}}}"),
    ),
    "lora": Case(**_BOTH, lora=True),
    "quickstart": Case(config="configs/quickstart.yaml", overrides=QUICKSTART, module="launch.train"),
}
