"""The data command as a user meets it: what it prints, what it writes and how it refuses."""

import json
from pathlib import Path

import pytest

from coevo_jax.commands.cli import run_command
from coevo_jax.commands.data import main
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.interchange import Problems, open_set, read_conversations, read_records
from coevo_jax.envs.registry import ENVIRONMENTS, EnvSpec
from tests.letters_env import LettersEnv, LettersOptions
from tests.tiny import LETTERS

PREPARED: list[str] = []


class SlowLetters(LettersEnv):
    """Letters whose experts must be prepared; every tenth task has none."""

    def prepare_experts(self, tasks, on_progress):
        for done, task in enumerate(tasks, start=1):
            PREPARED.append(task.id)
            on_progress(done, len(tasks))

    def expert(self, task):
        return super().expert(task) if task.id in PREPARED and not task.id.endswith("0") else None


def make_slow_letters(options: LettersOptions) -> SlowLetters:
    return SlowLetters(options)


def generate_letters(options: LettersOptions, out: Path, on_progress) -> None:
    (out / "words.txt").write_text(f"seed {options.seed}")
    on_progress(1, 1)


@pytest.fixture(autouse=True)
def letters(monkeypatch):
    monkeypatch.setitem(ENVIRONMENTS, "letters", LETTERS)
    generating = EnvSpec(
        options_at=f"{__name__}:LettersOptions",
        make_at=f"{__name__}:make_slow_letters",
        generate_at=f"{__name__}:generate_letters",
    )
    monkeypatch.setitem(ENVIRONMENTS, "slow_letters", generating)
    PREPARED.clear()


def experts(path, *more, env="letters", format="eto-sft"):
    main(["experts", env, "--tasks", "0:12", "--to", format, "--out", str(path), *more])
    return path


def test_experts_are_exported_with_their_family(tmp_path, capsys):
    path = experts(tmp_path / "experts.json", "seed=3")
    rows = json.loads(path.read_text())
    assert len(rows) == 12
    assert rows[0]["conversations"][0] == {"from": "human", "value": "Copy"}
    assert (rows[0]["family"], rows[0]["split"], rows[0]["reward"]) == ("copy", "train", 1.0)
    env = LettersEnv(LettersOptions(seed=3))
    assert rows[5]["conversations"][-1]["value"] == env.expert(env.tasks("train")[5]).turns[-1].response
    assert "12 experts of 12 tasks written to" in capsys.readouterr().out


def test_experts_are_prepared_first_and_missing_ones_named(tmp_path, capsys):
    path = experts(tmp_path / "e.jsonl", env="slow_letters", format="agenttraj")
    assert len(PREPARED) == 12
    assert len(path.read_text().splitlines()) == 10
    printed = capsys.readouterr().out
    assert "10 experts of 12 tasks" in printed
    assert "no expert: train/0, train/10" in printed


def test_a_set_goes_through_every_format_and_back(tmp_path):
    start = experts(tmp_path / "0.json")
    expected = read_conversations(str(start), None, None, Problems("refuse"))
    last = start
    for format, name in (
        ("agenttraj", "1.jsonl"),
        ("tfds-experts", "2"),
        ("messages", "3.parquet"),
        ("eto-sft", "4.jsonl"),
        ("tfds-experts", "5"),
        ("eto-sft", "6.json"),
    ):
        main(["convert", str(last), "--to", format, "--out", str(tmp_path / name)])
        last = tmp_path / name
        assert read_conversations(str(last), None, None, Problems("refuse")) == expected
    assert last.read_bytes() == start.read_bytes()


def test_several_sets_become_one_and_inspect_shows_it(tmp_path, capsys):
    one = experts(tmp_path / "1.json")
    two = tmp_path / "2.json"
    rows = json.loads(one.read_text())
    for row in rows:
        row["reward"] = 0.5
        row["conversations"][-1]["value"] = "Action: c c c c c"
    two.write_text(json.dumps(rows))
    main(["convert", str(one), str(two), "--to", "eto-pairs", "--out", str(tmp_path / "p.json")])
    capsys.readouterr()
    main(["inspect", str(tmp_path / "p.json"), str(two), "--samples", "1"])
    printed = capsys.readouterr().out
    assert "eto-pairs, 12 rows" in printed
    assert "eto-sft, 12 rows" in printed
    assert "Rewards: mean 0.500, solved 0.0%" in printed
    assert "Action: c c c c c" in printed
    assert all(len(line) <= 120 for line in printed.splitlines())


def test_validate_lists_places_and_exits_with_2(tmp_path, capsys, monkeypatch):
    path = experts(tmp_path / "e.json")
    main(["validate", str(path)])
    assert "eto-sft, 12 rows, all good" in capsys.readouterr().out
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace('"gpt"', '"gtp"', 1)
    path.write_text("\n".join(lines))
    monkeypatch.setattr("sys.argv", ["data", "validate", str(path)])
    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert (
        f"{path}: element 2 (line 4): conversations[1]: found the speaker 'gtp' (did you mean 'gpt'?)"
        in printed.out
    )
    assert printed.err == "error: 1 broken rows, 11 good ones\n"


def test_a_broken_row_is_refused_or_left_out_as_chosen(tmp_path, capsys):
    path = experts(tmp_path / "e.jsonl")
    path.write_text(path.read_text() + '{"id": 1}\n')
    out = tmp_path / "out.json"
    with pytest.raises(ConfigError, match=r"e\.jsonl: line 13: no key 'conversations or messages'"):
        main(["convert", str(path), "--to", "agenttraj", "--out", str(out)])
    assert not out.exists()
    main(["convert", str(path), "--to", "agenttraj", "--out", str(out), "--on-error", "skip"])
    printed = capsys.readouterr().out
    assert "12 rows written to" in printed
    assert "1 broken rows left out:" in printed
    assert len(list(read_records(open_set(str(out)), Problems("refuse")))) == 12


def test_generate_writes_what_the_environment_generates(tmp_path, capsys):
    main(["generate", "slow_letters", "--out", str(tmp_path / "a"), "seed=4"])
    assert (tmp_path / "a" / "words.txt").read_text() == "seed 4"
    assert "words.txt" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="holds files already"):
        main(["generate", "slow_letters", "--out", str(tmp_path / "a")])
    with pytest.raises(ConfigError, match=r"sead: unknown key \(did you mean 'seed'"):
        main(["generate", "slow_letters", "--out", str(tmp_path / "b"), "sead=4"])
    with pytest.raises(ConfigError, match="'letters', which generates no data"):
        main(["generate", "letters", "--out", str(tmp_path / "b")])
    assert not (tmp_path / "b").exists()


SQL = ("train_tasks=40", "train_databases=2", "domains=3", "observation_chars=70")


def played(path, *more):
    main(["generate", "intercode_sql", "--players", "--out", str(path), *SQL, *more])
    return path


def test_players_write_conversations_that_a_warm_start_reads(tmp_path, capsys):
    path = played(tmp_path / "a.jsonl", "--tasks", "10:30", "--habit", "retry=0.5", "--habit", "seed=3")
    assert "20 episodes of 20 tasks written to" in capsys.readouterr().out
    rows = read_conversations(str(path), "messages", None, Problems("refuse"))
    assert len(rows) == 20 and len({row.reward for row in rows}) > 2
    assert all(row.messages[-1].text == "Action: submit" for row in rows)
    assert {row.extra["environment"] for row in rows} == {"intercode_sql"}
    same = played(tmp_path / "b.jsonl", "--tasks", "10:30", "--habit", "retry=0.5", "--habit", "seed=3")
    assert same.read_bytes() == path.read_bytes()
    longer = played(tmp_path / "c.jsonl", "--habit", "retry=0.5", "--habit", "seed=3")
    assert longer.read_bytes().splitlines()[10:30] == path.read_bytes().splitlines()
    other = played(tmp_path / "d.jsonl", "--tasks", "10:30", "--habit", "retry=0.5", "--habit", "seed=4")
    assert other.read_bytes() != path.read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["letters", "--players"], "found 'letters', which has no players (valid: intercode_sql"),
        (["slow_letters", "--tasks", ":5"], "found --tasks, which would do nothing without --players"),
        (["slow_letters", "--habit", "retry=1"], "found --habit, which would do nothing without --players"),
        (["intercode_sql", "--players", "--habit", "rety=1"], "rety: unknown key (did you mean 'retry'"),
        (["intercode_sql", "--players", "--habit", "retry=2"], "retry"),
        (["intercode_sql", "--players", "--habit", "retry=0.9"], "of at most 1 together"),
        (["intercode_sql", "--players", "max_turns=4"], "found max_turns 4, expected at least 6"),
        (["intercode_sql", "--players", "--tasks", "9000:"], "selects none of the 2400 tasks"),
        (["intercode_sql", "--players", "--tasks", "a:b"], "expected a slice"),
    ],
)
def test_players_that_cannot_play_are_refused(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        run_command(main, ["generate", *words, "--out", str(tmp_path / "new.jsonl")])
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "new.jsonl").exists()


def test_players_write_a_file_of_messages_and_replace_none(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        played(path)
    with pytest.raises(ConfigError, match="found the ending ''"):
        played(tmp_path / "folder")
    assert path.read_text() == "mine"
    assert played(path, "--overwrite").read_text() != "mine"


def test_bad_input_is_refused_before_anything_is_written(tmp_path):
    path = experts(tmp_path / "e.json")
    before = path.read_bytes()
    for arguments, message in (
        (["experts", "letters", "--to", "eto-sft", "--out", str(path)], "exists already"),
        (
            ["experts", "letters", "--tasks", "900:", "--to", "eto-sft", "--out", str(tmp_path / "n.json")],
            "selects none",
        ),
        (
            ["experts", "letters", "--tasks", "a:b", "--to", "eto-sft", "--out", str(tmp_path / "n.json")],
            "expected a slice",
        ),
        (
            ["experts", "leters", "--to", "eto-sft", "--out", str(tmp_path / "n.json")],
            "did you mean 'letters'",
        ),
        (
            ["convert", str(path), "--to", "trajectories", "--out", str(tmp_path / "n.json")],
            "expected .parquet",
        ),
        (["convert", str(path), "--to", "trajectories", "--out", str(tmp_path / "n.parquet")], "--tokenizer"),
        (
            ["convert", str(path), "--to", "tfds-experts", "--out", str(tmp_path / "n.json")],
            "name of a folder",
        ),
        (["inspect", str(tmp_path / "none.json")], "no such file or folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            main(arguments)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["e.json"]
    with pytest.raises(SystemExit, match="2"):
        main(["validate", str(path), "--sample"])


def test_validate_says_what_is_learned_by_kind_of_row(tmp_path, capsys):
    def said(*agents):
        return [m for a in agents for m in ({"role": "user", "content": "q"}, {"role": "assistant", **a})]

    rows = [
        {"id": 1, "messages": said({"content": "a", "weight": 0}, {"content": "b", "name": "joe"})},
        {"id": 2, "messages": said({"content": "c"}), "label": False},
        {"id": 3, "reward": 0.5, "messages": said({"content": "d"})},
        {"id": 4, "conversations": said({"content": "e"})[:1], "chosen": {"from": "gpt", "value": "f"}},
    ]
    rows[3]["rejected"] = {"from": "gpt", "value": "g"}
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    main(["validate", str(path)])
    lines = [line.removeprefix(f"{path}: ") for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        "messages, 4 rows, all good",
        "2 rows of messages (OpenAI, TRL, Axolotl): 2 of the agent's 3 messages are learned",
        "1 rows of messages (OpenAI, TRL, Axolotl), answers judged bad: "
        "0 of the agent's 1 messages are learned",
        "1 rows of preferences after conversations (LLaMA-Factory): 1 of the agent's 1 messages are learned, "
        "1 of rejected sides only compared",
    ]
    assert "note: 1 rows from which nothing is learned" in lines
    assert "note: 1 messages with other keys, which are kept and not learned from" in lines
    assert "note: 1 rows with a reward below 1, which are learned from all the same" in lines
    for name in ("out.json", "out.parquet", "out"):
        format = "eto-sft" if name.startswith("out.") else "tfds-experts"
        main(["convert", str(path), "--to", format, "--out", str(tmp_path / name)])
        imported = read_conversations(str(tmp_path / name), None, None, Problems("refuse"))
        learned = [m.text for c in imported for m in c.messages if m.speaker == "gpt" and not m.skipped]
        assert learned == ["b", "d", "f"]
        assert imported[0].messages[3].extra == {"name": "joe"}


def test_two_files_without_ids_do_not_become_a_pair(tmp_path):
    for name, reward in (("ONE", 1), ("TWO", 0)):
        said = [{"role": "user", "content": f"task {name}"}, {"role": "assistant", "content": "Action: a"}]
        (tmp_path / f"{name}.json").write_text(json.dumps([{"reward": reward, "messages": said}]))
    files = [str(tmp_path / f"{name}.json") for name in ("ONE", "TWO")]
    with pytest.raises(ConfigError, match=r"nothing to write \(pairs need two conversations"):
        main(["convert", *files, "--to", "eto-pairs", "--out", str(tmp_path / "p.json")])
