"""The benchmark of the train step: its pairs, its arithmetic, and what it does with a contender that ends."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import learning, pair_sets
from benchmarks.contenders import OWN, PLAIN, Cell, Contender, ContenderError, Measured
from coevo_jax.config.strict import ConfigError

# Two trajectories of one task with three tokens in common, and one of another task with the same beginning.
RECORDS = [
    {"task": "a", "tokens": [5, 6, 7, 8], "mask": [0, 0, 1, 1], "prompt": 2},
    {"task": "a", "tokens": [5, 6, 7, 9, 9], "mask": [0, 0, 1, 1, 0], "prompt": 2},
    {"task": "b", "tokens": [5, 6], "mask": [0, 1], "prompt": 1},
]
SHAPE = {
    "hidden_size": 2,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 5,
    "intermediate_size": 7,
    "vocab_size": 11,
}
STEPS = pair_sets.PairSteps(name="some", trajectories=RECORDS, steps=[[(0, 1), (1, 0)], [(2, 0), (0, 2)]])


def cell() -> Cell:
    """Ours at 2 s a step after references of 3 s; TRL on half of the pairs at 9 s after 3 s."""

    def measured(seconds: float) -> Measured:
        step = {"seconds": seconds, "cpu": 2 * seconds, "peak_rss": 2**30, "device_peak": None, "loss": 0.7}
        ready = {"reference_seconds": [99.0, 3.0, 3.0], "reference_cpu": [99.0, 3.0, 3.0]}
        return Measured(ready=ready, first=step, steps=[step, step])

    both = {OWN: measured(2.0), "TRL": measured(9.0)}
    return Cell(model=SHAPE, vocab_size=11, pair_steps=STEPS, peer_pairs=1, measured=both)


def test_needed_flops_count_every_distinct_beginning_once():
    # Encoded: 4 + 2 tokens, seeing 1 + 2 + 3 + 4 and 4 + 5; the agent wrote 2 of the first, 1 of the second.
    dense = 2 * 6 * 3 * (2 * 5 * (4 + 2) + 4 * 5 * 2 + 3 * 2 * 7)
    attention = 4 * (10 + 9) * 3 * 4 * 5
    head = 2 * 3 * 2 * 11
    assert pair_sets.needed_flops(SHAPE, STEPS, [(0, 1)]) == 3 * (dense + attention + head)


def test_tasks_share_nothing():
    apart = [pair_sets.needed_flops(SHAPE, STEPS, [(index, index)]) for index in (0, 2)]
    assert pair_sets.needed_flops(SHAPE, STEPS, [(0, 2)]) == sum(apart)


def test_a_co_evolution_step_is_one_task_with_every_pair_once():
    found = pair_sets.co_evolution(2, vocab_size=100)
    assert len(found.trajectories) == 10
    for number, step in enumerate(found.steps):
        expert = 5 * number
        assert len(step) == len(set(step)) == 8
        assert {rejected for chosen, rejected in step if chosen == expert} == set(
            range(expert + 1, expert + 5)
        )
        prompts = {
            tuple(found.trajectories[i]["tokens"][: pair_sets.PROMPT]) for i in range(expert, expert + 5)
        }
        assert len(prompts) == 1
    again = pair_sets.co_evolution(2, vocab_size=100)
    assert again == found


def test_single_pairs_share_no_trajectory():
    found = pair_sets.single_pairs(3, vocab_size=100)
    used = [index for step in found.steps for pair in step for index in pair]
    assert len(used) == len(set(used)) == 3 * 2 * pair_sets.SINGLE_PAIRS


def test_a_third_of_the_references_counts_and_ratios_are_of_tokens():
    ours, trl = learning.rows_of(cell())
    assert np.allclose(learning.costs(cell().measured[OWN]), [3.0, 3.0])  # 2 + 3 / 3
    # Steps of 18 and 12 tokens, of which TRL trains on 9 and 6.
    assert ours[4] == "0.67 (0.67–0.67)" and ours[5] == "5"  # 2 pairs in 3 s; the median of 18 / 3 and 12 / 3
    assert trl[4] == "0.10 (0.10–0.10)"
    assert ours[8] == "6.67 (6.67–6.67)" and trl[8] == "1"  # (18 / 3) / (9 / 10)


def test_the_peers_terms_are_repeated_tokens_and_multiples_of_every_other_contender():
    both = cell()
    both.measured[PLAIN] = both.measured[OWN]
    header, _, row = learning.sharing([both])
    assert header == (
        "| pairs | vocabulary | tokens of pairs / unique ones | times prefixes not shared | times TRL |"
    )
    # 18 tokens of 6 unique ones, and 12 of 6: those of task b are its own.
    assert row == "| some | 11 | 2.50 | 1.00 (1.00–1.00) | 6.67 (6.67–6.67) |"


def test_the_peak_is_the_best_of_all_turns():
    own = cell()
    own.measured[OWN].ready.update(matmul_peak=1e9, settings="x")
    own.measured[OWN].steps[:] = [{**step, "matmul_peak": 2e9} for step in own.measured[OWN].steps]
    [line] = learning.utilisation(own, None)
    assert "of a matrix product's 2 (the best of 3 turns; the least was 1)" in line


def test_peers_take_the_first_pairs_of_a_step():
    assert cell().steps_of("TRL") == [[(0, 1)], [(2, 0)]]
    assert cell().steps_of(OWN) == STEPS.steps


@pytest.mark.parametrize("text", ["co-evolution", "nothing:32000", "single:many", "single:1:2:3"])
def test_words_that_name_no_cell_are_refused(text):
    with pytest.raises(ConfigError, match="expected SET:VOCABULARY"):
        learning.cell_of(text, argparse.Namespace(run=None, steps=1, preset="tiny"))


def test_a_folder_without_pairs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected a run"):
        pair_sets.of_run(tmp_path, 1)


def test_a_contender_that_ends_says_why(tmp_path):
    job = tmp_path / "job.json"
    job.write_text(json.dumps({}))
    contender = Contender("TRL", Path(sys.executable), "benchmarks.peers.no_such_module", job, {})
    with pytest.raises(ContenderError, match=r"TRL ended with exit code 1:\n.*no_such_module"):
        contender.step()
    contender.close()
