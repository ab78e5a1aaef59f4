"""What is learned stays learned: through every layout, every conversion, and where rows are compared."""

import json

from hypothesis import given
from hypothesis import strategies as st

from coevo_jax.data.interchange import Message, Speaker, TextPair, to_demonstration
from coevo_jax.data.interchange.layouts import LAYOUTS, parse_row
from coevo_jax.data.interchange.messages import FLAGS
from coevo_jax.data.interchange.pairs import chosen_side, pair_up
from tests.data.interchange.rows import says, system, user

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(str.strip)
TURN = st.tuples(
    TEXT,
    TEXT,
    st.dictionaries(st.sampled_from(sorted(FLAGS)), st.none() | st.booleans(), max_size=1),
    st.dictionaries(st.sampled_from(["name", "id", "timestamp"]), TEXT, max_size=2),
)


@st.composite
def conversation_rows(draw):
    key, role, text, names = draw(
        st.sampled_from(
            [
                ("messages", "role", "content", ("user", "assistant")),
                ("conversations", "from", "value", ("human", "gpt")),
                ("messages", "role", "content", ("tool", "model")),
            ]
        )
    )
    messages = []
    for heard, said, flags, extra in draw(st.lists(TURN, min_size=1, max_size=3)):
        messages += [{role: names[0], text: heard}, {role: names[1], text: said, **flags, **extra}]
    row = {key: messages} | draw(st.sampled_from([{}, {"label": False}, {"kto_tag": 1}, {"system": "s"}]))
    return row | draw(st.sampled_from([{}, {"id": "t"}, {"chosen": None, "prompt": ""}]))


@given(row=conversation_rows(), format=st.sampled_from(["eto-sft", "agenttraj", "messages"]))
def test_what_is_learned_is_learned_again_after_every_conversion(row, format):
    record = parse_row(row, 0)
    again = parse_row(json.loads(json.dumps(LAYOUTS[format].write(record))), 1)
    assert again == record
    assert [m.extra for m in again.messages] == [m.extra for m in record.messages]
    assert to_demonstration(again) == to_demonstration(record)


@given(
    context=st.lists(st.tuples(TEXT, TEXT), max_size=2),
    question=TEXT,
    sides=st.lists(TEXT, min_size=2, max_size=2, unique=True),
    prompt=st.sampled_from(["", "s"]),
)
def test_a_preference_means_the_same_in_every_layout(context, question, sides, prompt):
    """One preference, written as five programs have it, with context that is never learned."""
    asked = [message for heard, said in context for message in (user(heard), says(said))]
    asked = [*([system(prompt)] if prompt else []), *asked, user(question)]
    good, bad = (says(text) for text in sides)
    records = [
        parse_row(row, 0)
        for row in (
            {"prompt": asked, "chosen": [good], "rejected": [bad]},
            {"chosen": [*asked, good], "rejected": [*asked, bad]},
            {"messages": asked, "chosen": good, "rejected": bad},
            {"messages": [*asked, good], "rejected_response": bad["content"]},
            {"input": {"messages": asked}, "preferred_output": [good], "non_preferred_output": [bad]},
        )
    ]
    assert all(record == records[0] for record in records)
    assert isinstance(records[0], TextPair)
    assert parse_row(json.loads(json.dumps(LAYOUTS["eto-pairs"].write(records[0]))), 0) == records[0]
    side = chosen_side(records[0])
    learned = [m.text for m in side.messages if m.speaker is Speaker.GPT and not m.skipped]
    assert learned == [sides[0]]


def read(*rows):
    return [parse_row(row, index) for index, row in enumerate(rows)]


def test_only_answers_to_one_prompt_of_one_task_are_compared():
    """Rows without ids, with equal ids of other prompts, and under other system prompts."""
    one, two = [user("task ONE"), says("a")], [user("task TWO"), says("b")]
    better = [user("task ONE"), says("c")]
    assert pair_up(read({"reward": 1, "messages": one}) + read({"reward": 0, "messages": two})) == []
    assert (
        pair_up(read({"id": 1, "reward": 1, "messages": one}, {"id": 1, "reward": 0, "messages": two})) == []
    )
    assert (
        pair_up(read({"id": 1, "reward": 1, "messages": one}, {"id": 2, "reward": 0, "messages": better}))
        == []
    )
    alone = [[says("a")], [says("b")]]
    assert (
        pair_up(read({"reward": 1, "messages": alone[0]}) + read({"reward": 0, "messages": alone[1]})) == []
    )
    others = [
        {"system": name, "reward": r, "messages": m} for name, r, m in (("s", 1, one), ("t", 0, better))
    ]
    assert pair_up(read(*others)) == []
    found = pair_up(read({"reward": 0, "messages": one}) + read({"reward": 1, "messages": better}))
    assert [(pair.chosen[0].text, pair.rejected[0].text) for pair in found] == [("c", "a")]
    joined = pair_up(read(others[0], {"reward": 0, "messages": better}))
    assert [pair.system_prompt for pair in joined] == ["s"]


def test_a_judged_answer_is_imitated_or_compared():
    good, bad = ({"messages": [user("q"), says(t)], "label": t == "good"} for t in ("good", "bad"))
    pair = pair_up(read(good, bad))[0]
    assert pair.chosen == (Message(speaker=Speaker.GPT, text="good"),)
    assert pair.rejected == (Message(speaker=Speaker.GPT, text="bad"),)
    assert parse_row(bad, 0).reward == 0.0
