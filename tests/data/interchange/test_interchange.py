"""Sets in the formats of others: what is written is read again, and what others write is understood."""

import json

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import chat_format
from coevo_jax.data.chat.tokenizer import train_tokenizer
from coevo_jax.data.interchange import (
    Conversation,
    Message,
    Problems,
    Speaker,
    TextPair,
    convert,
    open_set,
    read_conversations,
    read_records,
    render_conversation,
    to_demonstration,
)
from coevo_jax.data.interchange.layouts import LAYOUTS, guess_layout, parse_conversation, parse_pair
from coevo_jax.data.interchange.records import from_demonstration
from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.trajectory import Demonstration, Ending, Trajectory, Turn

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(["OK", "ok.", ""])
SAID = TEXT.filter(str.strip)
HUMAN = st.builds(Message, speaker=st.just(Speaker.HUMAN), text=TEXT)
AGENT = st.builds(Message, speaker=st.just(Speaker.GPT), text=SAID) | st.builds(
    Message, speaker=st.just(Speaker.GPT), text=TEXT, skipped=st.just(True)
)
MESSAGES = st.lists(HUMAN | AGENT, max_size=6).map(tuple)
SPOKEN = MESSAGES.filter(lambda messages: any(m.speaker is Speaker.GPT for m in messages))
EXTRA = st.dictionaries(
    st.sampled_from(["family", "note", "deep"]), st.text(max_size=4) | st.lists(st.integers(), max_size=2)
)
SYSTEM = st.tuples(SAID, st.sampled_from(["OK", "OK. I'll do it.", "No."])) | st.just(("", "OK"))
CONVERSATIONS = st.builds(
    lambda system, **fields: Conversation(system_prompt=system[0], acknowledgement=system[1], **fields),
    system=SYSTEM,
    id=SAID,
    messages=SPOKEN,
    reward=st.none() | st.floats(0, 1),
    extra=EXTRA,
)
LOUD = SPOKEN.map(
    lambda messages: tuple(m if m.text.strip() else Message(speaker=m.speaker, text="a") for m in messages)
)
PAIRS = st.builds(
    lambda system, **fields: TextPair(system_prompt=system[0], acknowledgement=system[1], **fields),
    system=SYSTEM,
    id=SAID,
    prompt=st.lists(HUMAN, max_size=2).map(tuple),
    chosen=SPOKEN.filter(lambda messages: messages[0].speaker is Speaker.GPT),
    rejected=SPOKEN.filter(lambda messages: messages[0].speaker is Speaker.GPT),
    extra=EXTRA,
).filter(lambda pair: pair.chosen != pair.rejected)


def human(text):
    return Message(speaker=Speaker.HUMAN, text=text)


def gpt(text, skipped=False):
    return Message(speaker=Speaker.GPT, text=text, skipped=skipped)


def read(path, format=None, on_error="refuse"):
    problems = Problems(on_error)
    opened = open_set(str(path), format)
    return opened.format, [record for _, record in read_records(opened, problems)], problems


def write(path, format, records, **options):
    placed = [(f"made {index}", record) for index, record in enumerate(records)]
    return convert(placed, path, format, problems=Problems("refuse"), **options)


@pytest.mark.parametrize("format", ["eto-sft", "agenttraj", "messages"])
@given(conversation=CONVERSATIONS)
def test_every_layout_gives_a_conversation_back(format, conversation):
    row = json.loads(json.dumps(LAYOUTS[format].write(conversation)))
    assert LAYOUTS[format].parse(row, 0) == conversation


@given(pair=PAIRS)
def test_the_preference_layout_gives_a_pair_back(pair):
    row = json.loads(json.dumps(LAYOUTS["eto-pairs"].write(pair)))
    assert parse_pair(row, 0) == pair
    assert guess_layout(row) == "eto-pairs"


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize("format", ["eto-sft", "agenttraj", "messages", "eto-pairs"])
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_files_give_every_row_back_and_tell_their_format(tmp_path, format, suffix, data):
    records = PAIRS if format == "eto-pairs" else CONVERSATIONS
    rows = data.draw(st.lists(records, min_size=1, max_size=5, unique_by=repr))
    path = tmp_path / f"rows{suffix}"
    assert write(path, format, rows) == (path, len(rows))
    guessed, found, _ = read(path)
    assert found == rows
    same_family = {"eto-sft", "agenttraj"}  # a flagged row of eto-sft looks like agenttraj
    assert guessed == format or {guessed, format} == same_family


@given(
    prompt=SAID,
    responses=st.lists(
        SAID.map(lambda text: f"Thought: {text}\nAction: {text.strip()}"), min_size=1, max_size=4
    ),
    observation=TEXT,
    system=st.just("") | SAID,
)
def test_a_demonstration_comes_back_as_it_was(prompt, responses, observation, system):
    turns = tuple(
        Turn(response=text, action=text.rpartition("Action:")[2].strip(), observation=observation)
        for text in responses
    )
    made = Demonstration(task_id="t", prompt=prompt, turns=turns, reward=0.5)
    for format in ("eto-sft", "agenttraj", "messages"):
        row = LAYOUTS[format].write(from_demonstration(made, system, {"family": "f"}))
        conversation = parse_conversation(json.loads(json.dumps(row)), 0)
        assert conversation.system_prompt == system
        assert to_demonstration(conversation) == (made, (True,) * len(turns))


def test_the_convention_of_eto_by_hand():
    """Instruction, "OK", task, then turns: as the files of the predecessors have it."""
    row = {
        "id": 17,
        "conversations": [
            {"from": "human", "value": "You shop."},
            {"from": "gpt", "value": "OK"},
            {"from": "human", "value": "Find socks"},
            {"from": "gpt", "value": "Thought: search\nAction: search[socks]"},
            {"from": "human", "value": "Page 1"},
            {"from": "gpt", "value": "Action: click[buy]"},
        ],
        "reward": 0.75,
        "game_file": "x",
    }
    conversation = parse_conversation(row, 0)
    assert (conversation.id, conversation.system_prompt, conversation.reward) == ("17", "You shop.", 0.75)
    assert conversation.extra == {"game_file": "x"}
    demonstration, learned = to_demonstration(conversation)
    assert demonstration == Demonstration(
        task_id="17",
        prompt="Find socks",
        turns=(
            Turn(
                response="Thought: search\nAction: search[socks]",
                action="search[socks]",
                observation="Page 1",
            ),
            Turn(response="Action: click[buy]", action="click[buy]", observation=""),
        ),
        reward=0.75,
    )
    assert learned == (True, True)
    assert LAYOUTS["eto-sft"].write(conversation) == row | {"id": "17"}
    flags = [message["loss"] for message in LAYOUTS["agenttraj"].write(conversation)["conversations"]]
    assert flags == [None, False, None, True, None, True]
    roles = [message["role"] for message in LAYOUTS["messages"].write(conversation)["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]


@pytest.mark.parametrize(
    ("messages", "prompt", "pairs"),
    [
        ((human("a"), human("b"), gpt("x")), "a\nb", [("x", "")]),
        ((gpt("x"), human("o"), gpt("y")), "", [("x", "o"), ("y", "")]),
        ((human("a"), gpt("x"), gpt("y")), "a", [("x", ""), ("y", "")]),
        ((human("a"), gpt("x"), human("o"), human("p")), "a", [("x", "o\np")]),
        ((human(""), gpt("x"), human(""), gpt("y")), "", [("x", ""), ("y", "")]),
    ],
)
def test_odd_orders_of_speakers_become_turns(messages, prompt, pairs):
    demonstration, _ = to_demonstration(Conversation(id="a", messages=messages))
    assert demonstration.prompt == prompt
    assert [(turn.response, turn.observation) for turn in demonstration.turns] == pairs
    assert demonstration.reward == 1.0


def test_a_real_answer_that_begins_with_ok_is_no_acknowledgement():
    says = [("human", "Task"), ("gpt", "OK, done.\nAction: submit"), ("human", "Right.")]
    row = {"id": "a", "conversations": [{"from": who, "value": text} for who, text in says]}
    assert parse_conversation(row, 0).system_prompt == ""
    assert len(parse_conversation(row, 0).messages) == 3


SAY = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1], r"found \[1\] \(list\), expected an object"),
        ({"id": 1}, r"no key 'conversations or messages'; found the keys id"),
        ({"conversation": SAY}, r"did you mean 'conversations' by 'conversation'"),
        ({"conversations": "a"}, r"conversations: found 'a' \(string\), expected a list"),
        ({"conversations": []}, r"found no message of the agent"),
        ({"conversations": SAY[:1]}, r"found no message of the agent"),
        ({"conversations": [*SAY, "x"]}, r"conversations\[2\]: found 'x' \(string\), expected an object"),
        (
            {"conversations": [*SAY, {"from": "gptt", "value": ""}]},
            r"\[2\]: found the speaker 'gptt' \(did you mean 'gpt'",
        ),
        ({"conversations": [*SAY, {"value": ""}]}, r"\[2\]: no key 'from or role'"),
        ({"conversations": [*SAY, {"from": "gpt", "value": None}]}, r"\[2\]\.value: found null"),
        ({"conversations": [*SAY, {"from": "gpt", "value": " "}]}, r"found an empty text"),
        (
            {"conversations": [*SAY, {"from": "system", "value": "s"}]},
            r"found a system message, expected it first",
        ),
        (
            {"conversations": [{**SAY[0], "loss": True}, SAY[1]]},
            r"found true on a message the agent did not write",
        ),
        ({"conversations": SAY, "id": [1]}, r"id: found \[1\] \(list\)"),
        ({"conversations": SAY, "reward": 2}, r"reward: found 2 \(integer\), expected a number in \[0, 1\]"),
        ({"conversations": SAY, "reward": True}, r"reward: found True \(boolean\)"),
        ({"conversations": SAY, "id": "\ud800"}, r"id: holds half of a surrogate pair"),
    ],
)
def test_a_broken_conversation_says_what_is_wrong(row, message):
    with pytest.raises(ValueError, match=message):
        parse_conversation(row, 0)


def test_a_broken_pair_says_what_is_wrong():
    good = {"id": 1, "prompt": SAY[:1], "chosen": SAY[1:], "rejected": "other"}
    assert parse_pair(good, 0).rejected == (gpt("other"),)
    for change, message in (
        ({"chosen": "other"}, "chosen and rejected are the same"),
        ({"chosen": SAY[:1]}, "chosen: found no message of the agent"),
        ({"chosen": 1}, "chosen: found 1"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_pair(good | change, 0)


def test_broken_rows_are_left_out_or_refused_with_file_and_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = json.dumps({"id": "a", "conversations": SAY})
    path.write_text(
        f'{good}\n{{"id": \n{good}\n{good.replace("gpt", "robot")}\n{good.replace("a", "c", 1)}\n'
    )
    _, rows, problems = read(path, on_error="skip")
    assert len(rows) == 2
    assert problems.count == 3
    assert [text.removeprefix(str(path))[:9] for text in problems.first] == [
        ": line 2:",
        ": line 3:",
        ": line 4:",
    ]
    assert problems.first[1].endswith("the same as line 1")
    with pytest.raises(ConfigError, match=r"rows\.jsonl: line 2: broken JSON"):
        read(path)
    with pytest.raises(ConfigError, match=r"line 2"):
        convert(
            read_records(open_set(str(path)), Problems("refuse")),
            tmp_path / "out.json",
            "agenttraj",
            problems=Problems("refuse"),
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]


def trajectory(**changes):
    turns = (
        Turn(response="Action: a", action="a", observation="o"),
        Turn(response="Action: b", action="b", observation="end"),
    )
    fields = {
        "task_id": "t", "agent": "target", "sample": 0, "prompt": "Do", "turns": turns, "reward": 0.25,
        "ending": Ending.FAILED, "tokens": np.arange(3, dtype=np.int32), "agent_mask": np.ones(3, bool),
        "logps": np.full(3, -0.1, np.float32),
    }  # fmt: skip
    return Trajectory(**fields | changes)


def test_roll_outs_become_preference_pairs(tmp_path):
    """The best of a task against each worse one; a tie and a broken episode give none."""
    solved = trajectory(agent="expert", reward=1.0, ending=Ending.SOLVED, turns=trajectory().turns[1:])
    rows = [
        solved,
        trajectory(),
        trajectory(sample=1, reward=0.5),
        trajectory(task_id="u"),
        trajectory(task_id="u", sample=1),
    ]
    write_trajectories(tmp_path / "t.parquet", rows)
    convert(
        read_records(open_set(str(tmp_path / "t.parquet")), Problems("refuse")),
        tmp_path / "pairs.json",
        "eto-pairs",
        problems=Problems("refuse"),
        system_prompt="Be brief.",
    )
    written = json.loads((tmp_path / "pairs.json").read_text())
    assert [(row["id"], row["chosen_reward"], row["rejected_reward"]) for row in written] == [
        ("t", 1.0, 0.25),
        ("t", 1.0, 0.5),
    ]
    assert [message["value"] for message in written[0]["prompt"]] == ["Be brief.", "OK", "Do"]
    assert [message["value"] for message in written[0]["chosen"]] == ["Action: b"]
    assert [message["value"] for message in written[0]["rejected"]] == ["Action: a", "o", "Action: b"]
    problems = Problems("skip")
    broken = [
        ("x", trajectory(ending=Ending.FAULT)),
        ("y", trajectory(turns=(Turn(response=" ", action="", observation=""),))),
    ]
    with pytest.raises(ConfigError, match=r"nothing to write; 2 rows were left out"):
        convert(broken, tmp_path / "no.json", "eto-sft", problems=problems)
    assert "ending fault" in problems.first[0] and "turn 0: the agent wrote nothing" in problems.first[1]


def test_loss_flags_reach_the_mask(tmp_path):
    chat = chat_format(train_tokenizer(["Do it", "Action: a"], 300, tmp_path / "tokenizer"))
    messages = (human("Do"), gpt("Action: a", skipped=True), human("o"), gpt("Action: b"))
    conversation = Conversation(id="t", messages=messages, system_prompt="Not this one")
    rendered = render_conversation(chat, conversation, "This one")
    expected = chat.prompt_ids("This one", "Do") + chat.response_ids("Action: a") + chat.observation_ids("o")
    learned = chat.response_ids("Action: b")
    assert rendered.tokens.tolist() == expected + learned
    assert rendered.agent_mask.tolist() == [False] * len(expected) + [True] * len(learned)
    with pytest.raises(ConfigError, match=r"expected --tokenizer FOLDER"):
        write(tmp_path / "t.parquet", "trajectories", [conversation])
    write(tmp_path / "t.parquet", "trajectories", [conversation], chat=chat)
    assert read_trajectories([tmp_path / "t.parquet"])[0].turns == rendered.turns


def test_sets_of_the_hub_in_folders_open_without_network(tmp_path):
    rows = [
        {"id": "a", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]}
    ]
    expected = [Conversation(id="a", messages=(human("q"), gpt("r")))]
    data = datasets.Dataset.from_list(rows)
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"test": data}).save_to_disk(tmp_path / "splits")
    (tmp_path / "files").mkdir()
    data.to_parquet(tmp_path / "files" / "train-00000-of-00001.parquet")
    for folder in ("saved", "splits", "files"):
        assert read(tmp_path / folder)[:2] == ("messages", expected)
    with pytest.raises(ConfigError, match=r"found no split 'dev' \(valid: test\)"):
        open_set(str(tmp_path / "splits"), None, "dev")
    with pytest.raises(ConfigError, match=r"hub:none/such: the Hugging Face hub cannot be reached"):
        open_set("hub:none/such")


def test_what_cannot_be_a_set_is_named(tmp_path):
    (tmp_path / "sft.json").write_text('[{"instruction": "a"}]')
    with pytest.raises(ConfigError, match=r"found the keys instruction, expected 'conversations'"):
        open_set(str(tmp_path / "sft.json"))
    with pytest.raises(ConfigError, match=r"did you mean .*sft\.json"):
        open_set(str(tmp_path / "stf.json"))
    with pytest.raises(ConfigError, match=r"found no usable row; 1 were left out"):
        read_conversations(str(tmp_path / "sft.json"), "eto-sft", None, Problems("skip"))
    with pytest.raises(ConfigError, match=r"did you mean 'eto-sft'"):
        open_set(str(tmp_path / "sft.json"), "eto_sft")
    with pytest.raises(ConfigError, match=r"found the ending '\.txt'"):
        write(tmp_path / "a.txt", "eto-sft", [])
