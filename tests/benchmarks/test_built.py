"""What the table of built lessons says of a phase's record."""

import pytest

from benchmarks.built import built, explored

PLAYED = {"summary": {"n": 1600}, "agent_tokens": 12345}


@pytest.mark.parametrize(
    ("name", "record", "words"),
    [
        ("round-01/explore_target", PLAYED, "1,600 episodes, 12,345 tokens"),
        ("round-01/branch_own", PLAYED | {"points": 400}, "1,600 branches of 400 states, 12,345 tokens"),
        ("round-01/ask_reasons", {"questions": 35, "agent_tokens": 700}, "35 answers, 700 tokens"),
        (
            "round-01/evaluate_adapted",
            {"adaptation": {"episodes": 300}, "agent_tokens": 9},
            "300 test episodes one after another, 9 tokens",
        ),
        ("round-01/evaluate_target", PLAYED, ""),
    ],
)
def test_what_was_played(name, record, words):
    assert explored(name, record) == words


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (
            {
                "pairs": [
                    {"kind": "step", "count": 3, "tasks": 2, "by_turn": {"1": 2, "4": 1}},
                    {"kind": "outcome", "count": 5, "tasks": 5},
                ]
            },
            ["3 `step` pairs of 2 tasks (turn 1: 2, turn 4: 1)", "5 `outcome` pairs of 5 tasks"],
        ),
        ({"pairs": [], "trajectories": 7}, ["7 imitated"]),
        (
            {"imitated": {"trajectories": 9, "turns_left_out": 4, "weighed": 2}},
            ["9 imitated, 4 turns of 2 left out"],
        ),
        ({"marks": [{"mark": "{task} Be good.", "count": 8}]}, ["8 under “Be good.”"]),
        ({"trajectories": 6, "beside": {"drawn": 4, "trajectories": 6}}, ["6 imitated", "4 of 6 drawn"]),
        (
            {"trajectories": 1, "noted": {"revisions": {"pairs": 3, "no bad action": 2}}},
            ["revisions: 3 pairs, 2 no bad action", "1 imitated"],
        ),
        ({"reinforced": [{"turns": 3000, "count": 800}]}, ["3,000 turns of 800 episodes reinforced"]),
        (
            {"judged": {"accuracy": 0.51}, "own": 8, "expert": 2},
            ["a discriminator of 8 own and 2 expert steps, 51% told apart"],
        ),
    ],
)
def test_what_was_built(record, words):
    assert [*built(record)] == words
