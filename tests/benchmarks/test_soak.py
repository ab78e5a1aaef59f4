"""A long run's verdicts, on rounds that are made up."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.soak import Measured, judge, round_of, rounds_table, verdict_lines

ROUNDS = 300
STILL = Measured(
    **{"round": 0, "rss": 800.0, "private": 500.0, "handles": 8, "threads": 42, "children": 0},
    **{"kept": 1 << 20, "grown": 0, "wall": 2.0, "cpu": 1.0},
)


def rounds(change: Callable[[int], dict] = lambda number: {}) -> list[Measured]:
    """Rounds that all took the same, but for what is changed of each."""
    return [
        replace(STILL, **{"round": number, "grown": 90_000 * number} | change(number))
        for number in range(1, ROUNDS + 1)
    ]


def grew(found: list[Measured]) -> set[str]:
    return {one.name for one in judge(found) if one.grew}


def test_a_run_that_stays_as_it_is_does_not_grow():
    assert grew(rounds()) == set()
    lines = verdict_lines(judge(rounds())).splitlines()
    assert len(lines) == 10 and all(": flat: " in line for line in lines)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("resident memory", lambda number: {"rss": 800 + 0.07 * number}),
        ("private memory", lambda number: {"private": 500 + 0.05 * number}),
        # What compiling left hides this from who looks at the tenth round alone.
        ("resident memory, later on", lambda number: {"rss": 1000 if number < 15 else 800 + number / 5}),
        ("open handles", lambda number: {"handles": 8 + number // 100}),
        ("threads", lambda number: {"threads": 42 + number // 250}),
        ("threads of TensorStore's pool", lambda number: {"pool": 7 + number // 30}),
        ("child processes", lambda number: {"children": number // 200}),
        ("disk that must not grow", lambda number: {"kept": (1 << 20) + 100 * number}),
        ("what a round adds to the disk", lambda number: {"grown": 90_000 * number + 20 * number**2}),
        ("CPU seconds of a round", lambda number: {"cpu": 1 + number / 3000}),
    ],
)
def test_what_grows_is_named(name, change):
    found = grew(rounds(change))
    assert name in found and all(name.split(",")[0] in one for one in found)


def test_noise_is_no_growth():
    def noisy(number: int) -> dict:
        one = number * 7919 % 100 / 100  # as good as random, between 0 and 1
        busy = {"cpu": 9.0} if number in (290, 295) else {"cpu": 1 + one / 2}
        return busy | {
            "private": 490 + 10 * one,
            "threads": 41 + number % 2,
            "kept": 1_400_000 + number % 999,
        }

    assert grew(rounds(noisy)) <= {"private memory"}  # of which the very highest counts


def test_memory_that_falls_back_to_where_it_was_is_no_growth():
    """However high it rises between: of that the first look knows, at the tenth round."""

    def rising(number: int) -> dict:
        return {"rss": 850 if number < 15 else 800 + number % 16 * number / 100}

    assert grew(rounds(rising)) == set()


def test_too_few_rounds_are_not_judged():
    with pytest.raises(ValueError, match="found 60 rounds, expected at least 70"):
        judge(rounds()[:60])


def test_the_table_has_every_thirtieth_round():
    rows = rounds_table(rounds()).splitlines()[2:]
    assert [int(row.split("|")[1]) for row in rows] == [10, *range(30, 301, 30)]
    assert rows[0] == "| 10 | 800.0 | 500.0 | 8 | 42 | 0 | 0 | 1024.0 | 879 | 2.00 | 1.00 |"


def test_the_round_of_a_phase():
    assert [round_of(name) for name in ("warm_start", "round-07/learn_target", "round-123/x")] == [0, 7, 123]
