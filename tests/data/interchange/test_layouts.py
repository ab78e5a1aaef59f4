"""Rows as OpenAI, TRL, LLaMA-Factory, Axolotl and ms-swift document them: read rightly or refused by name."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coevo_jax.data.interchange import Conversation, Speaker
from coevo_jax.data.interchange.layouts import LAYOUTS, guess_layout, parse_row
from coevo_jax.data.interchange.messages import FLAGS
from coevo_jax.data.interchange.shapes import SHAPES
from tests.data.interchange.rows import gpt, human, part, says, system, user

DOCS = Path(__file__).parents[3] / "docs" / "data.md"


def told(row):
    """A row's meaning in short: system prompt, who said what, "-" before what is not learned from."""

    def lines(messages):
        marks = {Speaker.HUMAN: "u", Speaker.GPT: "a"}
        return " ".join(f"{'-' * m.skipped}{marks[m.speaker]}:{m.text}" for m in messages)

    record = parse_row(row, 0)
    head = f"[{record.system_prompt}] " if record.system_prompt else ""
    if isinstance(record, Conversation):
        return head + lines(record.messages)
    return f"{head}{lines(record.prompt)} > {lines(record.chosen)} | {lines(record.rejected)}"


READ = {
    "OpenAI's weight": (
        {"messages": [system("s"), user("q"), says("x", weight=0), user("p"), says("y", weight=1)]},
        "[s] u:q -a:x u:p a:y",
    ),
    "nulls of a merged set": (
        {
            "messages": [user("q", tool_calls=None, value=None), says("a", refusal=None, tool_calls=[])],
            **dict.fromkeys(["conversations", "prompt", "chosen", "rejected", "completion", "images"]),
        },
        "u:q a:a",
    ),
    "empty columns of a merged set": (
        {"messages": [], "chosen": [], "rejected": "", "conversations": [human("q"), gpt("a")]},
        "u:q a:a",
    ),
    "LLaMA-Factory's ShareGPT preferences": (
        {"conversations": [human("q"), gpt("a"), human("r")], "chosen": gpt("good"), "rejected": gpt("bad")},
        "u:q -a:a u:r > a:good | a:bad",
    ),
    "Axolotl's preferences": (
        {"messages": [system("s"), user("q")], "chosen": says("x"), "rejected": says("y")},
        "[s] u:q > a:x | a:y",
    ),
    "LLaMA-Factory's KTO, good": ({"messages": [user("q"), says("a")], "label": True}, "u:q a:a"),
    "LLaMA-Factory's KTO, bad": ({"messages": [user("q"), says("a")], "label": False}, "u:q -a:a"),
    "a KTO tag as a number": ({"conversations": [human("q"), gpt("a")], "kto_tag": 0}, "u:q -a:a"),
    "TRL's unpaired preferences": (
        {"prompt": [user("q")], "completion": [says("a")], "label": False},
        "u:q -a:a",
    ),
    "a label that is a category": (
        {"conversations": [human("q"), gpt("a")], "label": {"topic": ["maths"]}},
        "u:q a:a",
    ),
    "TRL's prompt and completion": (
        {"prompt": [user("q"), says("a"), user("r")], "completion": [says("b")]},
        "u:q -a:a u:r a:b",
    ),
    "TRL's explicit prompt": (
        {"prompt": [user("q")], "chosen": [says("a")], "rejected": [says("b")]},
        "u:q > a:a | a:b",
    ),
    "TRL's explicit prompt of text": (
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        "u:The sky is > a: blue. | a: green.",
    ),
    "TRL's implicit prompt": (
        {
            "chosen": [system("s"), user("q"), says("m"), user("r"), says("a")],
            "rejected": [system("s"), user("q"), says("m"), user("r"), says("b")],
        },
        "[s] u:q -a:m u:r > a:a | a:b",
    ),
    "an implicit prompt, the environments answer differently": (
        {
            "chosen": [user("q"), says("a"), user("o1"), says("b")],
            "rejected": [user("q"), says("a"), user("o2"), says("c")],
        },
        "u:q > a:a u:o1 a:b | a:a u:o2 a:c",
    ),
    "one side is the beginning of the other": (
        {
            "chosen": [user("q"), says("a"), user("o"), says("b")],
            "rejected": [user("q"), says("a")],
        },
        "u:q > a:a u:o a:b | a:a",
    ),
    "UltraFeedback": (
        {
            "prompt": "q",
            "chosen": [user("q"), says("a")],
            "rejected": [user("q"), says("b")],
            "messages": [user("q"), says("a")],
            "score_chosen": 8.0,
        },
        "u:q > a:a | a:b",
    ),
    "sides that hold more of the conversation than the prompt": (
        {
            "prompt": "r",
            "chosen": [user("q"), says("m"), user("r"), says("a")],
            "rejected": [user("q"), says("m"), user("r"), says("b")],
        },
        "u:q -a:m u:r > a:a | a:b",
    ),
    "UltraChat": ({"prompt": "q", "messages": [user("q"), says("a")]}, "u:q a:a"),
    "OpenAI's preferences": (
        {
            "input": {"messages": [system("s"), user("q")], "tools": [], "parallel_tool_calls": True},
            "preferred_output": [says("a")],
            "non_preferred_output": [says("b")],
        },
        "[s] u:q > a:a | a:b",
    ),
    "LLaMA-Factory v1": (
        {
            "chosen_messages": [part("user", "q", 0.0), part("assistant", "a", 1.0)],
            "rejected_messages": [part("user", "q", 0.0), part("assistant", "b", 1.0)],
        },
        "u:q > a:a | a:b",
    ),
    "ms-swift's rejected response": (
        {"messages": [user("q"), says("m"), user("r"), says("a")], "rejected_response": "b"},
        "u:q -a:m u:r > a:a | a:b",
    ),
    "Alpaca": (
        {
            "instruction": "i",
            "input": "x",
            "output": "o",
            "history": [["q", "a"]],
            "system": "s",
            "text": "all",
        },
        "[s] u:q a:a u:i\nx a:o",
    ),
    "Alpaca's preferences": ({"instruction": "i", "chosen": "a", "rejected": "b"}, "u:i > a:a | a:b"),
    "messages as JSON in a string": (
        {"messages": json.dumps([user("q"), says("a")]), "system": "s"},
        "[s] u:q a:a",
    ),
    "a row as JSON in a string": (json.dumps({"messages": [user("q"), says("a")]}), "u:q a:a"),
    "an answer that is JSON": (
        {"prompt": "q", "completion": '[{"tool": "search"}]'},
        'u:q a:[{"tool": "search"}]',
    ),
    "roles of others": (
        {
            "messages": [
                {"role": "developer", "content": "d"},
                {"role": "User", "content": "q"},
                {"role": "function_call", "content": "f"},
                {"role": "tool", "content": "o", "tool_call_id": "1"},
                {"role": "model", "content": "a"},
            ]
        },
        "[d] u:q a:f u:o a:a",
    ),
    "content in parts": (
        {
            "messages": [
                user([{"type": "text", "text": "q"}]),
                says(["a", {"type": "text", "text": "b"}]),
            ]
        },
        "u:q a:ab",
    ),
    "a thought that the content holds": (
        {"messages": [user("q"), says("<think>t</think>a", reasoning_content="t")]},
        "u:q a:<think>t</think>a",
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_documented_row_is_read_as_its_program_reads_it(name):
    row, expected = READ[name]
    assert told(row) == expected
    assert guess_layout(row) in LAYOUTS


SAID = [user("q"), says("a")]
REFUSED = {
    "calls of tools": (
        {"messages": [user("q"), says("a", tool_calls=[{"id": 1}])]},
        r"\[1\]\.tool_calls",
    ),
    "a call of a function": (
        {"messages": [*SAID, says(None, function_call={"name": "f"})]},
        "function_call",
    ),
    "a thought beside the content": (
        {"messages": [user("q"), says("a", reasoning_content="because")]},
        r"messages\[1\]\.reasoning_content: found 'because' \(string\) beside a text that does not hold it",
    ),
    "half a weight": (
        {"messages": [user("q"), says("a", weight=0.5)]},
        r"weight: found 0\.5 \(number\)",
    ),
    "a flag as text": (
        {"messages": [user("q"), says("a", train="no")]},
        r"train: found 'no' \(string\)",
    ),
    "flags that contradict": (
        {"messages": [user("q"), says("a", loss=True, mask=True)]},
        r"messages\[1\]\.mask: found True \(boolean\), which contradicts loss",
    ),
    "a flag on the user": ({"messages": [user("q", weight=1), says("a")]}, "the agent did not write"),
    "a misspelt flag": (
        {"messages": [user("q"), says("a", wieght=0)]},
        r"wieght: found 0 .*did you mean 'weight'",
    ),
    "a flag nobody knows": (
        {"messages": [user("q"), says("a", no_loss=True)]},
        "seems to say what is lear",
    ),
    "flags of characters": (
        {"messages": [user("q"), says("a", train_detail=[{"begin_offset": 0}])]},
        "train_detail",
    ),
    "flags that differ in parts": (
        {
            "messages": [
                user("q"),
                says([{"type": "text", "text": "t", "train": False}, {"type": "text", "text": "a"}]),
            ]
        },
        "flags that differ from part to part",
    ),
    "a picture in the content": (
        {"messages": [user([{"type": "image_url", "image_url": "x"}]), says("a")]},
        r"messages\[0\]\.content\[0\]: found a part of type 'image_url'",
    ),
    "pictures of a row": ({"messages": SAID, "images": ["x.png"]}, r"images: found \['x.png'\]"),
    "a flag of the row": ({"messages": SAID, "weight": 0}, "beside the messages, expected it on a message"),
    "a label that is no judgement": ({"messages": SAID, "label": 2}, "expected true or false"),
    "a judgement in words": ({"messages": SAID, "label": "false"}, r"label: found 'false' \(string\)"),
    "two lists of messages": (
        {"messages": SAID, "conversations": SAID},
        "'conversations' and 'messages' in one",
    ),
    "a prompt of something else": ({"messages": SAID, "prompt": "z"}, "prompt: found beside other messages"),
    "chosen without rejected": ({"messages": SAID, "chosen": SAID}, "'chosen' and 'messages' in one row"),
    "different system messages": (
        {"chosen": [system("s"), *SAID], "rejected": [system("t"), user("q"), says("b")]},
        "different system messages",
    ),
    "sides without a common beginning": (
        {"chosen": SAID, "rejected": [user("z"), says("b")]},
        "begin with different messages",
    ),
    "sides that do not follow the prompt": (
        {"prompt": "z", "chosen": SAID, "rejected": [user("q"), says("b")]},
        "chosen: begins with a message that is not the agent's",
    ),
    "an implicit prompt of text": (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        "plain text whose prompt cannot be told",
    ),
    "TRL's stepwise supervision": ({"prompt": "q", "completions": ["a"], "labels": [True]}, "stepwise"),
    "a prompt alone": ({"prompt": [user("q")]}, "a prompt alone"),
    "plain text": ({"text": "Once"}, "plain text"),
    "tokens": ({"input_ids": [1], "labels": [1]}, "found tokens"),
    "ranked answers": ({"prompt": "q", "answers": [{"answer": "a", "rank": 1}]}, "ranked answers"),
    "two names for one text": ({"messages": [user("q"), says("a", value="b")]}, "which differ"),
    "a system message late": (
        {"messages": [*SAID, {"role": "developer", "content": "d"}]},
        "expected it first",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_that_would_be_misread_is_refused_by_name(name):
    row, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        parse_row(row, 0)


@given(flag=st.sampled_from(sorted(FLAGS)), value=st.sampled_from([True, False, 0, 1, 0.0, 1.0, None]))
def test_every_flag_decides_under_its_name_and_in_every_form(flag, value):
    """Written by hand: a true mask, and anything else that is false, leave the message out."""
    skipped = value is not None and bool(value) == (flag == "mask")
    row = {"messages": [user("q"), says("x", **{flag: value}), user("p"), says("y")]}
    assert [m.skipped for m in parse_row(row, 0).messages] == [False, skipped, False, False]


def test_no_two_layouts_have_the_same_keys_and_the_docs_name_each():
    table = DOCS.read_text()
    assert [shape.name for shape in SHAPES if f"| {shape.name} |" not in table] == []
    assert [flag for flag in FLAGS if f"`{flag}`" not in table] == []
