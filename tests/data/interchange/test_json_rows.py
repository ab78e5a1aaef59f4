"""Rows of JSON files: every place is right, and a broken row costs itself only."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.interchange.json_rows import json_rows, write_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=6), JSON, max_size=3), max_size=6)


def read(path, text, chunk=1 << 20):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(json_rows(path, chunk))


def shown(rows):
    return [(row.where, row.value if row.problem is None else row.problem) for row in rows]


@given(rows=ROWS, indent=st.sampled_from([None, 0, 4]), chunk=st.integers(1, 40))
def test_an_array_is_read_as_json_reads_it_whatever_the_chunk(tmp_path_factory, rows, indent, chunk):
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    for text in (json.dumps(rows, indent=indent), json.dumps(rows, ensure_ascii=False, indent=indent)):
        found = read(path, text, chunk)
        assert [row.problem for row in found] == [None] * len(rows)
        assert [row.value for row in found] == rows
        assert [row.index for row in found] == list(range(len(rows)))
        assert all(row.done <= path.stat().st_size for row in found)


@given(rows=ROWS.filter(bool), lines=st.booleans())
def test_what_is_written_is_read_again(tmp_path_factory, rows, lines):
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    found = read(path, b"".join(write_json(rows, lines=lines)))
    assert [row.value for row in found] == rows
    if not lines:
        assert json.loads(path.read_text()) == rows


def test_an_empty_array_has_no_rows_and_is_written_as_one(tmp_path):
    assert b"".join(write_json([], lines=False)) == b"[]\n"
    assert read(tmp_path / "a.json", " [ ] \n") == []


GOOD = '{"id": 1, "t": "a]b}\\"c"}'


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (
            '{"id": 2,, "x": [1, {}]}',
            "broken JSON: Expecting property name enclosed in double quotes (line 3)",
        ),
        ('{"id" 2}', "broken JSON: Expecting ':' delimiter (line 3)"),
        ('{"id": "never closed}', "broken JSON: Unterminated string starting at (line 3)"),
        ('{"id": 2', "broken JSON: Expecting ',' delimiter (line 3)"),
        ('{"id": [2}', "broken JSON: Expecting ',' delimiter (line 3)"),
        ('{"id": 2]}', "broken JSON: Expecting ',' delimiter (line 3)"),
        ('{"id": 2}]', "broken JSON: Extra data (line 3)"),
        ('{"id": NaN}', "broken JSON: NaN is no JSON number"),
        ("", "broken JSON: expected a row here"),
        (b'{"id": "\xff"}', "invalid UTF-8 (byte 0xff at byte 8 of the row)"),
        ("[" * 100_000 + "]" * 100_000, "broken JSON: nested too deeply"),
    ],
)
def test_a_broken_element_is_named_and_its_neighbours_are_kept(tmp_path, broken, problem):
    broken = broken if isinstance(broken, bytes) else broken.encode()
    text = b"[\n" + GOOD.encode() + b",\n" + broken + b",\n" + GOOD.encode() + b"\n]"
    rows = read(tmp_path / "a.json", text)
    value = json.loads(GOOD)
    line = 4 if not broken else 3  # an empty place is noticed at what follows
    assert rows[0].value == rows[-1].value == value
    assert rows[1].problem is not None
    assert rows[1].problem.replace(f"line {line}", "line 3").startswith(problem)
    assert rows[1].where in ("element 1 (line 3)", "element 1 (line 4)")
    assert len(rows) == 3


def test_the_place_of_an_element_is_the_line_it_begins_in(tmp_path):
    text = json.dumps([{"a": [1, 2]}, {"b": 3}, {"c": 4}], indent=4)
    assert [row.where for row in read(tmp_path / "a.json", text)] == [
        "element 0 (line 2)",
        "element 1 (line 8)",
        "element 2 (line 11)",
    ]


def test_a_file_that_is_cut_off_keeps_what_came_before(tmp_path):
    text = json.dumps([{"a": "one"}, {"a": "two"}, {"a": "three"}], indent=1)
    rows = read(tmp_path / "a.json", text[: text.index("hree")])
    assert [row.value for row in rows[:2]] == [{"a": "one"}, {"a": "two"}]
    assert len(rows) == 3
    assert rows[2].problem is not None
    assert rows[2].problem.endswith("what follows cannot be told apart")


def test_text_behind_the_array_is_a_problem(tmp_path):
    rows = read(tmp_path / "a.json", '[{"a": 1}]\n\n{"b": 2}')
    assert shown(rows) == [
        ("element 0 (line 1)", {"a": 1}),
        ("line 3", "found '{\"b\": 2}' behind the end of the array"),
    ]


def test_lines_skip_blank_ones_and_report_each_broken_one(tmp_path):
    text = b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": \n{"a": "\xe9"}\n{"a": 2}'
    assert shown(read(tmp_path / "a.jsonl", text)) == [
        ("line 1", {"a": 1}),
        ("line 3", "broken JSON: Expecting value (column 7)"),
        ("line 4", "invalid UTF-8 (byte 0xe9 at byte 7 of the row)"),
        ("line 5", {"a": 2}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"line 1: found 'nothing', expected a JSON array"),
        (b"id,text\n1,a", r"line 1: found 'id,text"),
        (b'{\n "a": 1\n}', r"one JSON object over several lines"),
        ("[]".encode("utf-16"), r"found UTF-16 data"),
        (b"\x1f\x8b\x08", r"found gzip data that cannot be unpacked"),
        (b"PK\x03\x04", r"found zip data"),
        (b"BZh9", r"found bzip2 data"),
        (b"\x28\xb5\x2f\xfd", r"found Zstandard data"),
    ],
)
def test_what_holds_no_rows_is_refused(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path / "a.json", content)


def test_a_huge_array_is_read_within_a_small_window(tmp_path):
    """20,000 rows: the reader is done in time, and knows where it is."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"id": n, "text": "x" * 100} for n in range(20_000)], indent=1))
    rows = json_rows(path, 1 << 12)
    assert sum(row.value["id"] for row in rows) == sum(range(20_000))
