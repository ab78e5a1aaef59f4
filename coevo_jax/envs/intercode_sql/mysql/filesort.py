"""The order in which MySQL's filesort leaves equal rows.

It sorts up to 100 rows by the C++ library's introsort and more by a stable sort; under LIMIT it keeps the
best rows in a heap, or selects them first, as far as the rows fit its buffer. All three move equal rows,
always in the same way.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from coevo_jax.envs.intercode_sql.mysql.comparisons import side_reader
from coevo_jax.envs.intercode_sql.mysql.sorting import sort_key
from coevo_jax.envs.intercode_sql.mysql.terms import Row, Term

BUFFER_BYTES = 262_144
STABLE_FROM = 101  # rows
HEAP_SHARE = 3.0  # a heap is used for fewer than a third of the rows
SMALL = 16  # rows that introsort leaves to insertion
Entry = tuple[tuple[Any, ...], Row]


def filesort(
    rows: list[Row],
    keys: Sequence[tuple[Term, bool]],
    limit: int | None = None,
    row_bytes: int = 0,
    counted: bool = True,
) -> list[Row]:
    """The rows in the order of the keys; of equal ones in MySQL's, where `limit` rows are wanted.

    `counted`: whether MySQL knows how many rows come; of groups it does not, and uses the heap if that fits.
    """
    entries = _ranked(rows, keys)
    count = len(entries)
    if limit is None or (counted and limit * HEAP_SHARE >= count):
        ordered = sorted(entries, key=_first)
        if all(a[0] != b[0] for a, b in pairwise(ordered)):
            return [row for _, row in ordered]
    if limit is not None and 0 < limit < count:
        fitting = BUFFER_BYTES // (row_bytes + 8)
        if (limit < count / HEAP_SHARE) if counted and count < fitting else (limit + 1 < fitting):
            entries = _sorted(_best(entries, limit))[:limit]
        elif limit < count // 2:
            entries = sorted(_select(entries, limit - 1)[:limit], key=_first)
        else:
            entries = _sorted(entries)
    else:
        entries = _sorted(entries)
    return [row for _, row in entries]


def _first(entry: Entry) -> tuple[Any, ...]:
    return entry[0]


def _ranked(rows: list[Row], keys: Sequence[tuple[Term, bool]]) -> list[Entry]:
    """Every row behind what it sorts by; where a key descends, by its place among all values."""
    columns: list[list[Any]] = []
    for term, descending in keys:
        key = sort_key(term.compute, side_reader(term.type))
        found = [key(row) for row in rows]
        if not descending:
            columns.append(found)
            continue
        places = {value: place for place, value in enumerate(sorted(set(found), reverse=descending))}
        columns.append([places[value] for value in found])
    return (
        list(zip(zip(*columns, strict=True), rows, strict=True)) if columns else [((), row) for row in rows]
    )


def _sorted(entries: list[Entry]) -> list[Entry]:
    if len(entries) >= STABLE_FROM:
        return sorted(entries, key=_first)
    return introsort(entries)


def introsort(entries: list[Entry]) -> list[Entry]:
    """std::sort of GNU's C++ library: quicksort by the median of three, then insertion."""
    found, count = list(entries), len(entries)
    _quicksort(found, 0, count, 2 * (count.bit_length() - 1) if count else 0)
    first = min(count, SMALL) if count > SMALL else count
    for place in range(1, first):
        if found[place][0] < found[0][0]:
            found.insert(0, found.pop(place))
        else:
            _insert(found, place)
    for place in range(first, count):
        _insert(found, place)
    return found


def _insert(found: list[Entry], place: int) -> None:
    entry, before = found[place], place - 1
    while entry[0] < found[before][0]:
        found[before + 1] = found[before]
        before -= 1
    found[before + 1] = entry


def _quicksort(found: list[Entry], first: int, last: int, depth: int) -> None:
    while last - first > SMALL:
        if (
            depth == 0
        ):  # introsort goes over to a heap here; so deep a pattern of keys is left to a stable sort
            found[first:last] = sorted(found[first:last], key=_first)
            return
        depth -= 1
        cut = _partition(found, first, last)
        _quicksort(found, cut, last, depth)
        last = cut


def _partition(found: list[Entry], first: int, last: int) -> int:
    """Where the greater ones begin, with the median of three as the pivot at the first place."""
    _median_first(found, first, first + 1, first + (last - first) // 2, last - 1)
    low, high, pivot = first + 1, last, found[first][0]
    while True:
        while found[low][0] < pivot:
            low += 1
        high -= 1
        while pivot < found[high][0]:
            high -= 1
        if not low < high:
            return low
        found[low], found[high] = found[high], found[low]
        low += 1


def _median_first(found: list[Entry], result: int, a: int, b: int, c: int) -> None:
    x, y, z = found[a][0], found[b][0], found[c][0]
    low, high = (a, b) if x < y else (b, a)
    least, greatest = (x, y) if x < y else (y, x)
    middle = high if greatest < z else c if least < z else low
    found[result], found[middle] = found[middle], found[result]


def _select(entries: list[Entry], wanted: int) -> list[Entry]:
    """std::nth_element: the entry of a place is where it belongs, smaller ones before it."""
    found, first, last = list(entries), 0, len(entries)
    while last - first > 3:
        cut = _partition(found, first, last)
        if cut <= wanted:
            first = cut
        else:
            last = cut
    for place in range(first + 1, last):
        entry = found[place]
        if entry[0] < found[first][0]:
            found[first + 1 : place + 1] = found[first:place]
            found[first] = entry
        else:
            _insert(found, place)
    return found


def _best(entries: list[Entry], limit: int) -> list[Entry]:
    """The best entries and one more, in the slots of MySQL's bounded queue."""
    slots: list[Entry] = []
    heap: list[int] = []  # slots, the worst first
    for entry in entries:
        if len(heap) == limit + 1:
            slots[heap[0]] = entry
            if entry[0] < slots[heap[1]][0] or (limit > 1 and entry[0] < slots[heap[2]][0]):
                _sink(heap, slots)
            continue
        slots.append(entry)
        heap.append(len(slots) - 1)
        place = len(heap) - 1
        while place > 0 and not slots[heap[place]][0] < slots[heap[(place - 1) // 2]][0]:
            above = (place - 1) // 2
            heap[place], heap[above] = heap[above], heap[place]
            place = above
    return slots


def _sink(heap: list[int], slots: list[Entry]) -> None:
    place, size = 0, len(heap)
    while True:
        worst, left = place, 2 * place + 1
        if left < size and slots[heap[worst]][0] < slots[heap[left]][0]:
            worst = left
        if left + 1 < size and slots[heap[worst]][0] < slots[heap[left + 1]][0]:
            worst = left + 1
        if worst == place:
            return
        heap[place], heap[worst] = heap[worst], heap[place]
        place = worst
