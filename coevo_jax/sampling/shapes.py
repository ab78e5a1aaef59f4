"""The few shapes that an engine compiles programs for: of its slots, its cache and its prefill calls."""

CHUNKS = (32, 64, 128)  # tokens of a row of a prefill call
PREFILL_ROWS = {"cpu": 1}  # slots of a prefill call; a CPU is as fast with one, and then no row is padding
DEFAULT_PREFILL_ROWS = 8
LANE_SLOTS = 16  # at least, of a CPU's engine: with fewer, a step mostly reads the weights
FIRST_LENGTH = 384  # the cache starts this long and grows: a step reads all of it, and each length compiles


def cache_lengths(longest: int) -> tuple[int, ...]:
    """The lengths that a growing cache takes: powers of two and their midpoints, up to `longest`."""
    lengths, power = [], 1
    while power < longest:
        lengths += [power, power + power // 2]
        power *= 2
    return (*(length for length in lengths if FIRST_LENGTH <= length < longest), longest)


def cpu_lanes(slots: int) -> int:
    """The number of engines over which a CPU spreads an agent's slots, the same on every machine.

    XLA works on the calls of one thread in turn, on those of several threads side by side.
    """
    return max(lanes for lanes in range(1, max(1, slots // LANE_SLOTS) + 1) if slots % lanes == 0)


def default_prefill_rows(platform: str, slots: int) -> int:
    """The number of slots that one prefill call takes on a platform."""
    return min(PREFILL_ROWS.get(platform, DEFAULT_PREFILL_ROWS), slots)
