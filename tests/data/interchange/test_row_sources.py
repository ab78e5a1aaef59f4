"""One reader: the same rows and words for a file, a folder, a packed file and a table."""

import datetime
import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.interchange import Problems, convert, open_set, read_conversations, read_records


def row(number, **more):
    said = [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"r{number}"}]
    return {"id": f"t{number}", "messages": said, **more}


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    text = "\n".join(json.dumps(entry) for entry in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def read(path):
    problems = Problems("skip")
    records = [record for _, record in read_records(open_set(str(path)), problems)]
    return records, problems.first


def converted(source, out, format="messages"):
    problems = Problems("refuse")
    convert(read_records(open_set(str(source)), problems), out, format, problems=problems)
    return out


MIXED = [
    row(0, day="2024-05-01", big=123456789012345678901234567890, code="007", of="text", deep={"a": None}),
    row(1, day="2024-05-02T10:00:00Z", big=-(2**63) - 1, of=5, deep=[1, "x"]),
    row(2, day="later", of=[{"a": 1}], late="key"),
]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz", "a.json.gz"])
def test_a_folder_is_read_as_its_file_is(tmp_path, name):
    path = write(tmp_path / "set" / name, MIXED)
    by_file, by_folder = read(path), read(tmp_path / "set")
    assert by_file == by_folder
    assert [record.extra for record in by_file[0]] == [
        {key: value for key, value in entry.items() if key not in ("id", "messages")} for entry in MIXED
    ]


@pytest.mark.parametrize("end", [".json", ".jsonl", ".parquet"])
def test_values_stay_what_they_are_through_every_kind_of_file(tmp_path, end):
    path = converted(write(tmp_path / "set" / "a.jsonl", MIXED).parent, tmp_path / f"out{end}")
    back = converted(path, tmp_path / "back.jsonl")
    assert [json.loads(line) for line in back.read_text().splitlines()] == MIXED


def test_a_broken_row_far_into_a_folder_is_named_with_file_key_and_row(tmp_path):
    rows = [row(number) for number in range(1200)]
    rows[1100]["late"] = "fine"
    rows[1150]["reward"] = 2
    path = write(tmp_path / "set" / "a.jsonl", rows)
    records, problems = read(tmp_path / "set")
    assert len(records) == 1199
    assert problems == [f"{path}: line 1151: reward: found 2 (integer), expected a number in [0, 1]"]
    assert read(path) == (records, problems)


def test_broken_packed_data_is_named(tmp_path):
    path = write(tmp_path / "set" / "a.jsonl.gz", [row(number) for number in range(50)])
    whole = path.read_bytes()
    for broken in (whole[:-20], whole[:60] + b"x" * 20 + whole[80:], b"\x1f\x8b\x08"):
        path.write_bytes(broken)
        with pytest.raises(ConfigError, match=r"a\.jsonl\.gz: found gzip data that cannot be unpacked"):
            list(read_records(open_set(str(path)), Problems("skip")))


def test_splits_of_a_folder_and_files_that_no_split_takes(tmp_path):
    for number, name in enumerate(("train.jsonl", "test.jsonl")):
        write(tmp_path / "set" / name, [row(number)])
    found = {
        split: [c.id for c in read_conversations(str(tmp_path / "set"), None, split, Problems("refuse"))]
        for split in (None, "train", "test")
    }
    assert found == {None: ["t0"], "train": ["t0"], "test": ["t1"]}
    write(tmp_path / "set" / "more.jsonl", [row(2)])
    with pytest.raises(ConfigError, match=r"found more\.jsonl beside files of the split train and test"):
        open_set(str(tmp_path / "set"))


def test_files_whose_types_would_be_guessed_are_refused(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.csv").write_text("id,messages\n007,[]\n")
    with pytest.raises(ConfigError, match="found csv files, expected JSON or Parquet"):
        open_set(str(tmp_path / "set"))


def test_columns_of_several_types_are_read_as_their_values(tmp_path):
    """`datasets` stores such a column as JSON text: the quotes are not the agent's."""
    said = [
        [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "r"}]
    ]
    features = datasets.Features(
        {"messages": datasets.List({"role": datasets.Value("string"), "content": datasets.Json()})}
    )
    data = datasets.Dataset.from_dict({"messages": said}, features=features)
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(tmp_path / "saved")
    for name in ("a.parquet", "saved"):
        assert [m.text for m in read(tmp_path / name)[0][0].messages] == ["q", "r"]


def test_what_json_has_no_form_for_becomes_text_or_is_refused(tmp_path):
    def table(**columns):
        said = pa.array([row(0)["messages"]])
        pq.write_table(pa.table({"messages": said, **columns}), tmp_path / "a.parquet")
        return read(tmp_path / "a.parquet")

    day = table(day=pa.array([datetime.datetime(2024, 5, 1)]), score=pa.array([float("nan")]))
    assert day[0][0].extra == {"day": "2024-05-01T00:00:00"}
    with pytest.raises(
        ConfigError, match=r"a\.parquet: row 0: photo: found b'.xff' \(bytes\), expected text"
    ):
        table(photo=pa.array([b"\xff"]))
    assert table(extra=pa.array(["a user's own column"]))[0][0].extra == {"extra": "a user's own column"}


@pytest.mark.parametrize(
    ("text", "problem"), [("1e999", "beyond the largest"), ('"\\ud800"', "surrogate pair")]
)
def test_a_value_that_cannot_be_written_again_is_a_broken_row(tmp_path, text, problem):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{json.dumps(row(0))[:-1]}, "note": {text}}}\n{json.dumps(row(1))}')
    records, problems = read(path)
    assert [record.id for record in records] == ["t1"]
    assert problem in problems[0] and "line 1" in problems[0]


def test_rows_of_several_layouts_in_one_file_are_each_read_by_its_own_keys(tmp_path):
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    path = write(tmp_path / "a.jsonl", [row(0, prompt=None), pair, row(1, chosen=None, rejected=None)])
    records, problems = read(path)
    assert (len(records), problems) == (3, [])
    learned = [
        [m.text for m in c.messages if m.text in ("r0", "a", "r1") and not m.skipped]
        for c in read_conversations(str(path), None, None, Problems("refuse"))
    ]
    assert learned == [["r0"], ["a"], ["r1"]]


def test_equal_rows_without_ids_are_no_mistake_also_after_a_conversion(tmp_path):
    rows = [{"messages": row(0)["messages"]}] * 2
    path = write(tmp_path / "a.jsonl", rows)
    assert (len(read(path)[0]), read(path)[1]) == (2, [])
    for format, name in (("eto-sft", "b.json"), ("tfds-experts", "b")):
        assert len(read(converted(path, tmp_path / name, format))[0]) == 2
    named = write(tmp_path / "c.jsonl", [row(0)] * 2)
    assert read(named)[1] == [f"{named}: line 2: the same as line 1"]
