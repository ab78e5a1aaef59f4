"""The chat formats of real families: tokens and masks by hand, and parity with the template on the whole."""

import unicodedata
from datetime import datetime
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import normalizers

from coevo_jax.config.strict import ConfigError
from coevo_jax.data.chat.format import chat_format, render
from coevo_jax.data.chat.tokenizer import load_tokenizer
from coevo_jax.trajectory import Turn
from tests.data.chat.families import FAMILIES, make_tokenizer, template_of

SYSTEM, TASK, DATE = "Be brief.", "Count.", "26 Jul 2024"
TURNS = (
    Turn(response="Action: submit", action="submit", observation="Count singers."),
    Turn(response="Thought: I count.", action="", observation="[('a',)]\n  42 x"),
    Turn(response="Thought: 'tis done…\n\nAction: a[ b ]", action="", observation="never shown"),
)
EMPTY_THOUGHTS = "<think>\n\n</think>\n\n"
NEVER = [name for name in FAMILIES if not FAMILIES[name].rewrites]


@cache
def chat_of(name):
    return chat_format(make_tokenizer(name))


def messages(name, system, task, turns):
    """The conversation as a user of the template writes it; without a system role it goes into the task."""
    if system and not FAMILIES[name].system_role:
        system, task = "", f"{system}\n\n{task}"
    conversation = [{"role": "system", "content": system}] * bool(system)
    conversation.append({"role": "user", "content": task})
    for turn in turns:
        conversation.append({"role": "assistant", "content": turn.response})
        conversation.append({"role": "user", "content": turn.observation})
    return conversation[:-1] if turns else conversation


def whole(name, conversation, **options):
    """The template's own rendering, encoded as a whole."""
    tokenizer = chat_of(name).tokenizer
    text = tokenizer.apply_chat_template(conversation, tokenize=False, date_string=DATE, **options)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("system", ["", SYSTEM, "Two\nlines: <a>"])
def test_the_prompt_is_the_one_that_the_template_renders_for_sampling(name, system):
    expected = whole(name, messages(name, system, TASK, ()), add_generation_prompt=True)
    assert chat_of(name).prompt_ids(system, TASK) == expected


@pytest.mark.parametrize("name", NEVER)
@pytest.mark.parametrize("system", ["", SYSTEM])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_pieces_are_the_tokens_of_the_template_on_the_whole(name, system, count):
    tokens, _ = render(chat_of(name), system, TASK, TURNS[:count])
    expected = whole(name, messages(name, system, TASK, TURNS[:count]))
    assert tokens.tolist() == expected[: len(tokens)]
    # a newline behind the last end token is no part of the conversation: the agent's turn is over
    assert chat_of(name).tokenizer.decode(expected[len(tokens) :]) in ("", "\n")


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_sampled_from_at_each_turn_is_what_the_turns_before_left(name):
    """Also where the template rewrites the past: ours only appends."""
    chat = chat_of(name)
    before = chat.prompt_ids(SYSTEM, TASK)
    for count, turn in enumerate(TURNS, start=1):
        before += chat.response_ids(turn.response)
        assert render(chat, SYSTEM, TASK, TURNS[:count])[0].tolist() == before
        before += chat.observation_ids(turn.observation)


def test_qwen3_differs_from_the_template_by_the_thoughts_of_past_turns_alone():
    thoughts = "<think>\nI must.\n</think>\n\n"
    turns = [TURNS[0], Turn(response=thoughts + "Action: a", action="", observation="b"), TURNS[2]]
    tokenizer = chat_of("qwen3").tokenizer
    for count in (1, 2, 3):
        tokens, _ = render(chat_of("qwen3"), SYSTEM, TASK, turns[:count])
        expected = tokenizer.decode(whole("qwen3", messages("qwen3", SYSTEM, TASK, turns[:count])))
        *past, last = tokenizer.decode(tokens).split("<|im_start|>assistant\n")
        shown = [part.replace(EMPTY_THOUGHTS, "").replace(thoughts, "") for part in past]
        assert "<|im_start|>assistant\n".join([*shown, last]) + "\n" == expected
        assert tokenizer.decode(tokens).count("<think>") == count
    # and a turn that has just been played is the template's own, token for token
    for turn in turns[:2]:
        tokens, _ = render(chat_of("qwen3"), SYSTEM, TASK, [turn])
        assert [*tokens, *tokenizer.encode("\n")] == whole("qwen3", messages("qwen3", SYSTEM, TASK, [turn]))


def test_mistral_differs_from_the_template_by_the_place_of_the_system_prompt_alone():
    ours, _ = render(chat_of("mistral3"), SYSTEM, TASK, TURNS)
    folded = whole("mistral3", messages("mistral3", "", f"{SYSTEM}\n\n{TASK}", TURNS))
    assert ours.tolist() == folded
    assert ours.tolist() != whole("mistral3", messages("mistral3", SYSTEM, TASK, TURNS))
    plain, _ = render(chat_of("mistral3"), "", TASK, TURNS)
    assert plain.tolist() == whole("mistral3", messages("mistral3", "", TASK, TURNS))


# A conversation of two turns by hand: a line starting with `>` or `…` is what the agent reads, one with `*`
# what it writes. `⏎` is a newline.
LLAMA3_TURNS = """
… <|eot_id|> <|start_header_id|> user <|end_header_id|> ĊĊ Count .
… <|eot_id|> <|start_header_id|> assistant <|end_header_id|> ĊĊ
* Action : Ġsubmit <|eot_id|>
> <|start_header_id|> user <|end_header_id|> ĊĊ Count Ġsingers .
… <|eot_id|> <|start_header_id|> assistant <|end_header_id|> ĊĊ
* Thought : ĠI Ġcount . <|eot_id|>
"""
LLAMA31_SYSTEM = (
    "> <|begin_of_text|> <|start_header_id|> system <|end_header_id|> ĊĊ Cutting ĠKnowledge ĠDate :"
    " ĠDecember Ġ 202 3 Ċ Today ĠDate : Ġ 26 ĠJul Ġ 202 4 ĊĊ Be Ġbrief ."
)
CHATML = """
> <|im_start|> system Ċ Be Ġbrief . <|im_end|> Ċ
… <|im_start|> user Ċ Count . <|im_end|> Ċ <|im_start|> assistant Ċ
* Action : Ġsubmit <|im_end|>
> Ċ <|im_start|> user Ċ Count Ġsingers . <|im_end|> Ċ <|im_start|> assistant Ċ
* Thought : ĠI Ġcount . <|im_end|>
"""
GEMMA = """
> <bos> <start_of_turn> user ⏎ Be ▁brief . ⏎⏎ Count . <end_of_turn> ⏎ <start_of_turn> model ⏎
* Action : ▁submit <end_of_turn>
> ⏎ <start_of_turn> user ⏎ Count ▁singers . <end_of_turn> ⏎ <start_of_turn> model ⏎
* Thought : ▁I ▁count . <end_of_turn>
"""
OPENED = CHATML.replace("assistant Ċ", "assistant Ċ <think> Ċ").replace("* ", "* Ċ </think> ĊĊ ")
BY_HAND = {
    "llama2": """
> <s> ▁[ INST ] ▁<< SYS >> ⏎ Be ▁brief . ⏎ << / SYS >> ⏎ ⏎ Count . ▁[/ INST ]
* ▁Action : ▁submit ▁ </s>
> <s> ▁[ INST ] ▁Count ▁singers . ▁[/ INST ]
* ▁Thought : ▁I ▁count . ▁ </s>
""",
    "llama2_first": """
> <s> [ INST ] ▁<< SYS >> ⏎ Be ▁brief . ⏎ << / SYS >> ⏎ ⏎ Count . ▁[/ INST ]
* ▁Action : ▁submit ▁ </s>
> <s> [ INST ] ▁Count ▁singers . ▁[/ INST ]
* ▁Thought : ▁I ▁count . ▁ </s>
""",
    "llama3": "> <|begin_of_text|> <|start_header_id|> system <|end_header_id|> ĊĊ Be Ġbrief ."
    + LLAMA3_TURNS,
    "llama31": LLAMA31_SYSTEM + LLAMA3_TURNS,
    "llama32": LLAMA31_SYSTEM + LLAMA3_TURNS,
    "qwen25": CHATML,
    "qwen3": CHATML.replace("* ", "* <think> ĊĊ </think> ĊĊ "),
    "qwen3_instruct": CHATML,
    **dict.fromkeys(("qwen3_thinking", "qwen35", "qwq"), OPENED),
    "r1_distill": """
> <｜begin▁of▁sentence｜> Be Ġbrief . <｜User｜> Count . <｜Assistant｜> <think> Ċ
* Ċ </think> ĊĊ Action : Ġsubmit <｜end▁of▁sentence｜>
> <｜User｜> Count Ġsingers . <｜Assistant｜> <think> Ċ
* Ċ </think> ĊĊ Thought : ĠI Ġcount . <｜end▁of▁sentence｜>
""",
    "tekken": """
> <s> [INST] Be Ġbrief . ĊĊ Count . [/INST]
* Action : Ġsubmit </s>
> [INST] Count Ġsingers . [/INST]
* Thought : ĠI Ġcount . </s>
""",
    "mistral": """
> <s> ▁[ INST ] ▁Be ▁brief . ⏎ ⏎ Count . ▁[/ INST ]
* Action : ▁submit </s>
> ▁[ INST ] ▁Count ▁singers . ▁[/ INST ]
* Thought : ▁I ▁count . </s>
""",
    "mistral3": """
> <s> [INST] ▁ ▁Be ▁brief . ⏎ ⏎ Count . [/INST]
* ▁ ▁Action : ▁submit </s>
> [INST] ▁ ▁Count ▁singers . [/INST]
* ▁ ▁Thought : ▁I ▁count . </s>
""",
    "gemma2": GEMMA,
    "gemma3": GEMMA,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_and_mask_by_hand(name):
    chat = chat_of(name)
    tokens, mask = render(chat, SYSTEM, TASK, TURNS[:2])
    expected = []
    for line in BY_HAND[name].strip().splitlines():
        who, *words = line.split()
        expected += [(word.replace("⏎", "\n"), who == "*") for word in words]
    shown = chat.tokenizer.convert_ids_to_tokens(tokens.tolist())
    assert list(zip(shown, mask.tolist(), strict=True)) == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_the_template_names_the_token_that_ends_a_turn(name):
    chat, family = chat_of(name), FAMILIES[name]
    tokenizer = chat.tokenizer
    assert tokenizer.convert_ids_to_tokens(chat.end_id) == family.end
    assert chat.response_ids("x")[-1] == chat.end_id
    pad = family.names.get(
        "pad_token"
    )  # where there is none, the end token fills rows; masks come from records
    assert tokenizer.convert_ids_to_tokens(chat.pad_id) == (pad or family.end)
    assert chat.vocab_size == len(tokenizer)
    # the tokenizer's own end does not matter
    other = chat_format(make_tokenizer("llama3", eos_token="<|eot_id|>"))
    assert other.end_id == chat_of("llama3").end_id != chat_of("llama3").tokenizer.eos_token_id


STRANGE = [
    *("<s>", "</s>", "<unk>", "[INST]", "[/INST]", "<<SYS>>", "<bos>", "<eos>", "<end_of_turn>", "<pad>"),
    *("<|im_end|>", "<|im_start|>", "<|eot_id|>", "<|begin_of_text|>", "<|endoftext|>", "<|end_of_text|>"),
    *("<0x0A>", "</think>", " ", "  ", "\n", "\n\n", "\t", "'s", "a", "é", "\u0301", "日本", "👩‍🚀", "\x00"),
]


@pytest.mark.parametrize("name", FAMILIES)
@given(text=st.text() | st.lists(st.sampled_from(STRANGE) | st.text(max_size=3), max_size=8).map("".join))
@example(text="</s><s>[INST] x [/INST]<|im_end|><|eot_id|><end_of_turn>")
@example(text="")
@example(text=" \n a \n ")
def test_any_content_decodes_back_and_yields_no_control_token(name, text):
    chat = chat_of(name)
    tokenizer, control = chat.tokenizer, set(chat.tokenizer.all_special_ids) | chat.sections.forbidden
    # what the tokenizer itself cannot tell apart: Qwen's takes NFC, SentencePiece's spaces are ▁
    seen = unicodedata.normalize("NFC", text) if name.startswith("qwen") else text
    if not name.startswith(("qwen", "llama3")):
        seen = seen.replace("▁", " ")
    response = chat.response_ids(text)
    assert control.isdisjoint(response[:-1])
    told = chat.decode_response(response)
    if chat.glue.thoughts_at is None or "think>" not in text:
        assert told == seen
    else:  # thoughts that the prompt or the template has anyway are the same with and without
        assert chat.decode_response(chat.response_ids(told)) == told and told.endswith(seen.split(">")[-1])
    pairs = [
        (chat.prompt_ids(text or "s", text), chat.prompt_ids("s", "p")),
        (chat.observation_ids(text), chat.observation_ids("o")),
    ]
    for hostile, harmless in pairs:
        kept = [[token for token in ids if token in control] for ids in (hostile, harmless)]
        assert kept[0] == kept[1]
        assert seen in tokenizer.backend_tokenizer.decode(hostile, skip_special_tokens=False)


def test_a_word_of_the_vocabulary_that_is_a_control_token_is_taken_apart():
    """Some vocabularies hold their control tokens as words and look whole words up first."""
    tokenizer = make_tokenizer("llama2")
    tokenizer.backend_tokenizer.model.ignore_merges = True
    chat = chat_format(tokenizer)
    plain = chat.sections.encoders["inside"].encode("</s>", add_special_tokens=False).ids
    assert plain == [chat.end_id]
    assert chat.end_id not in chat.sections.encode("</s>", "inside")
    assert tokenizer.decode(chat.sections.encode("</s>", "inside")) == "</s>"


def test_an_end_token_that_the_tokenizer_does_not_call_special_is_none_to_contents():
    tokenizer = make_tokenizer("qwen25", chat_template=template_of("qwen25").replace("<|im_", "<|my_"))
    tokenizer.add_tokens(["<|my_start|>", "<|my_end|>"])
    assert "<|my_end|>" not in tokenizer.all_special_tokens
    chat = chat_format(tokenizer)
    assert tokenizer.convert_ids_to_tokens(chat.end_id) == "<|my_end|>"
    assert chat.response_ids("a<|my_end|>b").count(chat.end_id) == 1
    assert chat.decode_response(chat.response_ids("a<|my_end|>b")) == "a<|my_end|>b"


def test_the_date_is_not_the_day_of_the_run(monkeypatch):
    """Llama 3.2 asks the clock: a run resumed tomorrow would go on with other prompts."""

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2031, 5, 6)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Later)
    tokenizer = make_tokenizer("llama32")
    text = tokenizer.apply_chat_template(messages("llama32", "", TASK, ()), tokenize=False)
    assert "Today Date: 06 May 2031\n" in text  # the clock that the template is given elsewhere
    chat = chat_format(tokenizer)
    assert chat.prompt_ids("", TASK) == chat_of("llama31").prompt_ids("", TASK)
    assert "Today Date: 26 Jul 2024\n" in tokenizer.decode(chat.prompt_ids(SYSTEM, TASK))
    other = template_of("llama32").replace("%d %b %Y", "%A, %B %-d, %y-%m")
    dated = chat_format(make_tokenizer("llama32", chat_template=other))
    assert "Today Date: Friday, July 26, 24-07\n" in tokenizer.decode(dated.prompt_ids("", TASK))


def test_default_system_prompts_are_the_templates_own():
    assert "You are Qwen, created by Alibaba Cloud." in chat_of("qwen25").tokenizer.decode(
        chat_of("qwen25").prompt_ids("", TASK)
    )
    assert "You are Qwen" not in chat_of("qwen25").tokenizer.decode(chat_of("qwen25").prompt_ids("x", TASK))


def test_a_turn_keeps_its_own_thoughts_and_one_without_gets_empty_ones():
    chat = chat_of("qwen3")
    thought = "<think>\nI must.\n</think>\n\nAction: a"
    for text, written in [(thought, thought), ("Action: a", EMPTY_THOUGHTS + "Action: a")]:
        assert chat.tokenizer.decode(chat.response_ids(text)) == written + "<|im_end|>"
        assert chat.decode_response(chat.response_ids(text)) == text
    # what the agent generated is read as it is, thoughts and all
    cut = chat.tokenizer.encode("<think>\nI mus")
    assert chat.decode_response(cut) == "<think>\nI mus"


THINKING = ("qwen3", "qwen3_thinking", "qwen35", "qwq", "r1_distill")
PARTS = ["<think>", "</think>", "\n", "\n\n", "\n</think>\n\n", EMPTY_THOUGHTS, "I must.", "Action: a", " "]


@pytest.mark.parametrize("name", [*FAMILIES, "closed"])
@given(parts=st.lists(st.sampled_from(PARTS), max_size=6), ends=st.booleans())
@example(parts=["I must.", "\n</think>\n\n", "Action: a"], ends=True)
@example(parts=["\n</think>\n\n", "<think>", "\n</think>\n\n", "a"], ends=True)
@example(parts=[EMPTY_THOUGHTS, EMPTY_THOUGHTS, "a"], ends=True)
def test_the_text_of_a_played_turn_is_the_turn(name, parts, ends):
    """Written again, it is itself; and where the turn has its thoughts or needs none, its very tokens."""
    chat = closed_chat() if name == "closed" else chat_of(name)
    played = [*chat.sections.encode("".join(parts), "inside"), *[chat.end_id] * ends]
    text = chat.decode_response(played)
    again = chat.response_ids(text)
    assert chat.decode_response(again) == text
    glue, words = chat.glue, "".join(parts)
    whole = "</think>" in words if glue.opened and name != "closed" else words.startswith(EMPTY_THOUGHTS)
    bare = glue.thoughts_at is None and not glue.lead + glue.trail
    if ends and (bare or name == "closed" or (glue.thoughts_at is not None and whole)):
        assert chat.tokenizer.decode(again) == chat.tokenizer.decode(played)


@pytest.mark.parametrize("name", THINKING[1:])
def test_a_thought_that_the_prompt_opens_is_closed_once(name):
    chat = chat_of(name)
    thought = "I must.\n</think>\n\nAction: a"
    ids = [*chat.sections.encode(thought, "inside"), chat.end_id]
    text = chat.decode_response(ids)
    assert text == "<think>\n" + thought
    assert chat.response_ids(text) == ids
    assert chat.response_ids(thought) == ids  # as other servers tell it, without what the prompt holds
    assert chat.response_ids(f"<think>{thought}") == ids
    cut = chat.sections.encode("I mus", "inside")
    assert chat.decode_response(cut) == "<think>\nI mus"
    assert chat.decode_response(chat.response_ids("Action: a")) == "Action: a"
    assert chat.tokenizer.decode(render(chat, SYSTEM, TASK, TURNS)[0]).count("</think>") == len(TURNS)


def test_thoughts_between_control_tokens_are_refused_as_what_they_are():
    template = (
        template_of("gemma3") + "{%- if add_generation_prompt %}<|channel>thought\n<channel|>{% endif %}"
    )
    with pytest.raises(ConfigError, match=r"its thoughts are a channel between control tokens \(<\|channel…"):
        chat_format(make_tokenizer("gemma3", chat_template=template))


def test_a_prompt_that_no_turn_begins_with_is_named():
    template = template_of("qwen25").replace("assistant\\n' -}}", "assistant\\n<plan>' -}}")
    with pytest.raises(
        ConfigError, match=r"add_generation_prompt writes .*<plan>', a turn just played begins"
    ):
        chat_format(make_tokenizer("qwen25", chat_template=template))


@cache
def closed_chat():
    template = "{%- set enable_thinking = false -%}\n" + template_of("qwen3")
    return chat_format(make_tokenizer("qwen3", chat_template=template))


def test_thoughts_that_the_prompt_opens_or_closes_are_not_written_again():
    closed = closed_chat()
    prompt = closed.tokenizer.decode(closed.prompt_ids("", TASK))
    assert prompt.endswith("<|im_start|>assistant\n" + EMPTY_THOUGHTS)
    assert closed.tokenizer.decode(closed.response_ids("Action: a")) == "Action: a<|im_end|>"
    tokens, _ = render(closed, "", TASK, TURNS[:1])
    assert tokens.tolist() == whole("qwen3", messages("qwen3", "", TASK, TURNS[:1]))[:-1]
    opened = chat_of("qwen3_thinking")
    assert opened.tokenizer.decode(opened.prompt_ids("", TASK)).endswith("assistant\n<think>\n")
    for text, written in [("<think>\na\n</think>\n\nb", "a\n</think>\n\nb"), ("b", "\n</think>\n\nb")]:
        assert opened.tokenizer.decode(opened.response_ids(text)) == written + "<|im_end|>"
    assert opened.decode_response(opened.response_ids("b")) == "b"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_and_loaded_tokenizer_gives_the_same_tokens(name, tmp_path):
    make_tokenizer(name).save_pretrained(tmp_path)
    loaded = chat_format(load_tokenizer(tmp_path))
    for system in ("", SYSTEM):
        ours = render(chat_of(name), system, TASK, TURNS)[0].tolist()
        assert render(loaded, system, TASK, TURNS)[0].tolist() == ours
    assert (loaded.end_id, loaded.pad_id) == (chat_of(name).end_id, chat_of(name).pad_id)


def test_tokens_that_take_the_white_space_beside_them_do_so_in_pieces_too():
    """As Phi-3's `<|end|>`, which swallows the newline behind it."""
    tokenizer = make_tokenizer("qwen25")
    state = tokenizer.backend_tokenizer.to_str().replace('"rstrip":false', '"rstrip":true')
    swallowing = type(tokenizer)(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(state),
        chat_template=tokenizer.chat_template,
    )
    tokens, _ = render(chat_format(swallowing), SYSTEM, TASK, TURNS)
    text = swallowing.apply_chat_template(messages("qwen25", SYSTEM, TASK, TURNS), tokenize=False)
    assert tokens.tolist() == swallowing(text, add_special_tokens=False)["input_ids"]
    assert len(tokens) < len(render(chat_of("qwen25"), SYSTEM, TASK, TURNS)[0])


def test_a_text_that_starts_without_a_control_token_gets_its_front_space():
    """As Vicuna's: the space in front of the first section is the only one."""
    tokenizer = make_tokenizer(
        "llama2_first", chat_template=template_of("mistral").replace("bos_token", "''")
    )
    chat = chat_format(tokenizer)
    tokens, _ = render(chat, "", TASK, TURNS)
    text = tokenizer.apply_chat_template(messages("mistral", "", TASK, TURNS), tokenize=False)
    assert tokens.tolist() == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(tokens[:3].tolist()) == ["▁[", "INST", "]"]


def test_a_tokenizer_that_does_not_give_text_back_is_refused():
    tokenizer = make_tokenizer("qwen25")
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ConfigError, match="decoding 'qAGENTq' in its place gives 'qagentq'"):
        chat_format(tokenizer)


def test_a_template_without_a_generation_prompt_is_refused():
    template = template_of("qwen25").replace("{% if add_generation_prompt -%}", "{% if false -%}")
    with pytest.raises(ConfigError, match="add_generation_prompt leaves out"):
        chat_format(make_tokenizer("qwen25", chat_template=template))


def test_a_template_whose_turns_depend_on_the_system_prompt_is_refused():
    template = template_of("qwen3_instruct").replace(
        "message.role ~ '\\n'", "message.role ~ ('!\\n' if messages[0].role == 'system' else '\\n')"
    )
    with pytest.raises(ConfigError, match="differently when there is a system prompt"):
        chat_format(make_tokenizer("qwen3_instruct", chat_template=template))
