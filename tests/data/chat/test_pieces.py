"""What each token adds to the text of a turn."""

from coevo_jax.data.chat.pieces import token_texts


def as_bytes(tokens):
    """A tokenizer whose tokens are bytes."""
    return bytes(tokens).decode(errors="replace")


def test_every_token_has_its_text_and_a_character_of_several_stands_with_the_last():
    assert token_texts(list("aß!".encode()), as_bytes) == ["a", "", "ß", "!"]
    assert "".join(token_texts(list("größer".encode()), as_bytes)) == "größer"
    assert token_texts([], as_bytes) == []


def takes_back(tokens):
    """A tokenizer that marks where a word goes on without a space: the next token takes the mark back."""
    return "".join(tokens).replace("+ ", "")


def test_what_the_next_token_takes_back_costs_it_nothing():
    assert token_texts(["execute", "[+", " SHOW", " TABLES", "]"], takes_back) == [
        *("execute", "[", "SHOW", " TABLES", "]")
    ]


def strips_the_front(tokens):
    """A tokenizer whose text loses the space in front of its first token."""
    return "".join(tokens).lstrip(" ")


def test_tokens_alone_may_lose_their_space():
    assert token_texts([" a", " b", " c"], strips_the_front) == ["a", " b", " c"]


def test_a_character_that_broke_off_adds_nothing():
    assert token_texts([*b"ab", 0xC3], as_bytes) == ["a", "b", ""]
    assert token_texts([*b"a", 0xC3, *b"b"], as_bytes) == ["a", "", "\N{REPLACEMENT CHARACTER}b"]


def test_the_work_grows_as_the_text_does():
    read = 0

    def decode(tokens):
        nonlocal read
        read += len(tokens)
        return as_bytes(tokens)

    token_texts([65] * 1000, decode)
    shorter, read = read, 0
    token_texts([65] * 4000, decode)
    assert read < 4.2 * shorter
