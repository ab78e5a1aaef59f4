"""Lanes that play at the same time, in turn or in threads of their own, and when a turn goes on."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import jax

from coevo_jax.rollout.bar import ProgressBar
from coevo_jax.rollout.lane import Lane

LOOK_SECONDS = 0.2  # between two looks at lanes in threads of their own


def run_lanes(
    lanes: Sequence[Lane], joining: str, bar: ProgressBar, between_blocks: Callable[[], None]
) -> None:
    """Play until every episode of the lanes, which have engines of one kind, has its ending.

    Args:
      joining: when a turn goes on (`rollout.joining`).
      between_blocks: called now and then in this thread; what it raises ends the playing after a block.
    """
    run = _run_side_by_side if threads_of(lanes, joining) > 1 else _run_in_turn
    run(lanes, _joining(joining), bar, between_blocks)


def threads_of(lanes: Sequence[Lane], joining: str) -> int:
    """The number of threads in which lanes play: one each where the device gains by it, and order allows."""
    return len(lanes) if lanes[0].engine.side_by_side and _joining(joining) is not _join_as_ready else 1


def _run_in_turn(
    lanes: Sequence[Lane],
    go_on: Callable[[Sequence[Lane], Lane], None],
    bar: ProgressBar,
    between_blocks: Callable[[], None],
) -> None:
    """Play until every episode has its ending.

    Lanes take turns: while the host serves one, the device has the other's block.
    """
    for lane in lanes:
        lane.open()
    while any(lane.live for lane in lanes):
        between_blocks()
        for lane in lanes:
            if lane.live:
                go_on(lanes, lane)
        bar.show_slots(sum(len(lane.live) for lane in lanes))


def _run_side_by_side(
    lanes: Sequence[Lane],
    go_on: Callable[[Sequence[Lane], Lane], None],
    bar: ProgressBar,
    between_blocks: Callable[[], None],
) -> None:
    """Play until every episode has its ending, each lane in a thread of its own.

    A lane's order of events depends on its own tokens alone, so threads change nothing of what is played.
    """
    ended = threading.Event()

    def drive(lane: Lane) -> None:
        lane.open()
        while lane.live and not ended.is_set():
            go_on([lane], lane)

    with ThreadPoolExecutor(len(lanes), thread_name_prefix="lane") as threads:
        left = {threads.submit(drive, lane) for lane in lanes}
        try:
            while left:
                between_blocks()
                done, left = wait(left, timeout=LOOK_SECONDS, return_when=FIRST_EXCEPTION)
                for lane in done:
                    lane.result()
                bar.show_slots(sum(len(lane.live) for lane in lanes))
        finally:
            ended.set()


def _join_at_once(lanes: Sequence[Lane], lane: Lane) -> None:
    """All turns go on together: a lane's device waits for the slowest environment of every block."""
    lane.finish_block()
    lane.settle()
    lane.prefill()
    lane.start_block()


def _join_next_block(lanes: Sequence[Lane], lane: Lane) -> None:
    """A turn's environment steps during one whole block of the lane's other slots."""
    lane.finish_block()
    lane.prefill()
    lane.start_block()
    lane.settle()


def _join_as_ready(lanes: Sequence[Lane], lane: Lane) -> None:
    """Turns go on as their environments answer: nothing waits, and rounding may differ from run to run."""
    lane.finish_block()
    lane.take_ready(wait=all(other.idle for other in lanes))
    lane.prefill()
    lane.start_block()


def _joining(name: str) -> Callable[[Sequence[Lane], Lane], None]:
    if name == "auto":
        name = "at_once" if jax.default_backend() == "cpu" else "as_ready"
    return JOINING[name]


JOINING: dict[str, Callable[[Sequence[Lane], Lane], None]] = {
    "at_once": _join_at_once,
    "next_block": _join_next_block,
    "as_ready": _join_as_ready,
}
