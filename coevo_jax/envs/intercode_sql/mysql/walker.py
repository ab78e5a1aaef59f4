"""Walks over the tokens of one statement: what every part of the grammar is read with."""

from collections.abc import Callable
from typing import TypeVar

from coevo_jax.envs.intercode_sql.mysql import errors, nodes
from coevo_jax.envs.intercode_sql.mysql.lexer import Token, error_at, tokenize
from coevo_jax.envs.intercode_sql.mysql.nodes import Node
from coevo_jax.envs.intercode_sql.sqlite_sandbox import SqlError

T = TypeVar("T")


class Walker:
    """Walks over the tokens of one statement."""

    def __init__(self, sql: str, ignore_space: bool):
        self.sql = sql
        self.tokens = tokenize(sql)
        self.place = 0
        self._ignore_space = ignore_space

    @property
    def token(self) -> Token:
        """The current token."""
        return self.tokens[self.place]

    @property
    def word(self) -> str:
        """The current token as the grammar looks at it."""
        return self.tokens[self.place].word

    def peek(self, ahead: int) -> Token:
        """A later token."""
        return self.tokens[min(self.place + ahead, len(self.tokens) - 1)]

    def advance(self) -> None:
        """Go on to the next token."""
        if self.place < len(self.tokens) - 1:
            self.place += 1

    def take(self, word: str) -> bool:
        """Whether the current token is this word, which then is behind."""
        if self.tokens[self.place].word != word:
            return False
        self.advance()
        return True

    def expect(self, word: str) -> None:
        """Go over a word; anything else is the error."""
        if not self.take(word):
            raise self.error()

    def error(self) -> Exception:
        """Error 1064 at the current token."""
        return error_at(self.sql, self.token)

    def unsupported(self, what: str) -> SqlError:
        """Error 1235, for what is not emulated."""
        return errors.not_supported(what)

    def list_of(self, part: Callable[[], T]) -> list[T]:
        """Parts between commas, at least one."""
        parts = [part()]
        while self.take(","):
            parts.append(part())
        return parts

    def identifier(self) -> str:
        """A name that is no reserved word."""
        token = self.token
        if not token.is_name:
            raise self.error()
        self.advance()
        return token.text

    def name(self) -> Node:
        """A column with or without its table and database, or `t.*` where a select item may be one."""
        parts = [self.identifier()]
        while self.word == "." and len(parts) < 3:
            self.advance()
            if self.token.kind not in ("quoted", "name"):
                raise self.error()
            parts.append(self.token.text)
            self.advance()
        return nodes.Name(tuple(parts))
