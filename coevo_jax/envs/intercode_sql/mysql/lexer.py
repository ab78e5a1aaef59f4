"""MySQL's tokens, cut where its own lexer cuts them, so that a syntax error points where MySQL's does."""

import re
from typing import NamedTuple

from coevo_jax.envs.intercode_sql.mysql.errors import syntax_error
from coevo_jax.envs.intercode_sql.mysql.words import RESERVED

TOKEN = re.compile(
    r"(?P<space>\s+|#[^\n]*|--(?=[\s\x00-\x1f]|$)[^\n]*|/\*(?!!).*?\*/)"
    r"|(?P<text>(?:[nN](?=')|_[a-z0-9]+\s*(?=['\"]))?(?:'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"))"
    r"|(?P<hex>0x[0-9a-fA-F]+(?![\w$])|[xX]'(?:[0-9a-fA-F]{2})*'|0b[01]+(?![\w$])|[bB]'[01]*')"
    r"|(?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)|\d+\.\d*|\.\d+|\d+(?![\w$\u0080-\uffff]))"
    r"|(?P<name>[\w$\u0080-\uffff]+)"
    r"|(?P<quoted>`(?:[^`]|``)+`)"
    r"|(?P<system>@@[\w$.`]+)"
    r"|(?P<user>@(?:[\w$.]+|`[^`]+`|'[^']*'|\"[^\"]*\")?)"
    r"|(?P<sign><=>|->>|->|<<|>>|<=|>=|<>|!=|==|=[<>!=]+|\|\||&&|:=|[-+*/%^&|~!=<>(),.;?:{}\[\]])"
    r"|(?P<bad>.)",
    re.DOTALL,
)
ESCAPES = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a", "%": "\\%", "_": "\\_"}


class Token(NamedTuple):
    """A token. `word` is what the grammar looks at: a name or sign in small letters, "" for others."""

    kind: str  # name, quoted, text, hex, number, system, user, sign, end, bad
    text: str  # as written, without quotes
    word: str
    start: int
    end: int

    @property
    def is_name(self) -> bool:
        """Whether it names something: in backticks, or no reserved word."""
        return self.kind == "quoted" or (self.kind == "name" and self.word not in RESERVED)


def tokenize(sql: str) -> list[Token]:
    """The tokens of a statement; the last one is the end. What is no token is one of kind "bad"."""
    tokens: list[Token] = []
    for found in TOKEN.finditer(sql):
        kind = found.lastgroup or "bad"
        if kind == "space":
            continue
        text = found.group()
        start, end = found.span()
        after_dot = bool(tokens) and tokens[-1].text == "." and tokens[-1].kind == "sign"
        if kind == "name":
            tokens.append(
                Token("quoted" if after_dot else kind, text, "" if after_dot else text.lower(), start, end)
            )
        elif kind == "number" and after_dot and text.isdigit():
            tokens.append(Token("quoted", text, "", start, end))
        elif kind == "quoted":
            tokens.append(Token(kind, text[1:-1].replace("``", "`"), "", start, end))
        elif kind == "sign":
            bad = text == "==" or (text[0] == "=" and len(text) > 1)
            tokens.append(Token("bad" if bad else kind, text, text, start, end))
        elif kind == "bad":
            tokens.append(Token(kind, text, "", start, len(sql)))
            break
        else:
            tokens.append(Token(kind, text, "", start, end))
    tokens.append(Token("end", "", "", len(sql), len(sql)))
    return tokens


def error_at(sql: str, token: Token) -> Exception:
    """Error 1064 that points at a token."""
    return syntax_error(sql[token.start :], sql.count("\n", 0, token.start) + 1)


def text_value(written: str) -> str:
    """The value of a text in quotes, with or without a character set before it."""
    place = min(p for p in (written.find("'"), written.find('"')) if p >= 0)
    quote, body = written[place], written[place + 1 : -1]
    if "\\" not in body and quote not in body:
        return body
    return re.sub(
        r"\\(.)|" + quote * 2,
        lambda found: ESCAPES.get(found[1], found[1]) if found[1] else quote,
        body,
        flags=re.DOTALL,
    )


def hex_value(written: str) -> bytes:
    """The bytes of a hexadecimal or bit literal."""
    digits = written[2:].strip("'")
    if written[1 if written[0] == "0" else 0] in "bB":
        number = int(digits or "0", 2)
        return number.to_bytes(max(1, (len(digits) + 7) // 8), "big")
    return bytes.fromhex(digits.rjust(len(digits) + len(digits) % 2, "0"))
