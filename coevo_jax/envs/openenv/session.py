"""One socket of an OpenEnv server: the session of one instance, which plays one episode after the other.

Nothing of the server is trusted: every answer has a limit in bytes and in time, and must have the protocol's
form. What goes wrong closes the socket, so that the next call cannot get the answer to this one.
"""

import json
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, WebSocketException
from websockets.sync.client import ClientConnection, connect

from coevo_jax.envs.env import EnvFault
from coevo_jax.envs.openenv.options import OpenEnvOptions
from coevo_jax.envs.openenv.standing import FIRST_PAUSE, LONGEST_PAUSE, PATIENCE, standing_of

QUIET = logging.Logger("openenv sockets", logging.CRITICAL + 1)  # sockets that break are told as faults
CLOSE_SECONDS = 1.0  # that a server may take to say goodbye
FULL = "CAPACITY_REACHED"
NOT_VALID = "VALIDATION_ERROR"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An observation as a server sent it."""

    observation: Any
    reward: Any
    done: bool


class Refused(Exception):
    """The server says that an action is none; the session lives."""


class Session:
    """The socket of one instance: opened at the first reset, and again after whatever closed it."""

    def __init__(self, options: OpenEnvOptions):
        self._options = options
        self._url = f"{options.url.rstrip('/')}/ws"
        self._standing = standing_of(options.url)
        self._socket: ClientConnection | None = None
        self._answered = False  # whether the server has said anything in this socket
        self._calling = threading.Lock()  # held while a call uses the socket

    def reset(self, data: dict[str, Any]) -> Answer:
        """Begin an episode, in a new socket where the old one has gone.

        Raises:
          EnvFault: no session could be had in time, or the answer cannot be used.
          ConfigError: nobody has had a session for too long.
        """
        deadline, pause = time.monotonic() + self._options.timeout, FIRST_PAUSE
        while True:
            with self._calling:
                why = self._connect() if self._socket is None else ""
                if not why:
                    try:
                        return self._ask("reset", data)
                    except _Full as full:
                        why = str(full)
                    except _Closed as closed:  # an old socket that ended between two episodes, or a new one
                        why = str(closed)
            self._standing.failed(why, self._options.give_up)
            if FULL in why and pause >= PATIENCE:
                self._standing.make_room(self)
            if time.monotonic() + pause > deadline:
                raise EnvFault(f"no session for {self._options.timeout:g} s: {why}")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def step(self, action: dict[str, Any]) -> Answer:
        """Play an action in the running episode.

        Raises:
          Refused: the server takes it for no action.
          EnvFault: the session has gone, or the answer cannot be used.
        """
        with self._calling:
            if self._socket is None:
                raise EnvFault("the session was closed in mid-episode")
            return self._ask("step", action)

    def give_up_place(self) -> bool:
        """Close the socket for another session's sake, unless a call is under way."""
        if not self._calling.acquire(blocking=False):
            return False
        try:
            held = self._socket is not None
            self._drop()
            return held
        finally:
            self._calling.release()

    def probe(self) -> bool:
        """Take a place on the server, for as long as the socket stays open; whether there was one.

        Raises:
          EnvFault: the server does not answer.
        """
        with self._calling:
            if self._socket is not None:
                return True
            if why := self._connect():
                raise EnvFault(why)
            try:
                found = self._exchange("state", {"type": "state"})
            except _Full:
                return False
            if found["type"] == "error" and found["data"].get("code") == FULL:
                self._drop()
                return False
            return True  # another error, such as that nothing has begun, was said by a session

    def close(self) -> None:
        """Close the socket, also while another thread waits for an answer in it."""
        socket = self._socket
        if socket is not None:
            socket.close()
        with self._calling:
            self._drop()

    def _connect(self) -> str:
        """Open the socket; returns why not, and "" where it did."""
        options = self._options
        try:
            self._socket = connect(
                self._url,
                open_timeout=options.timeout,
                close_timeout=CLOSE_SECONDS,
                ping_interval=None,
                max_size=options.answer_bytes,
                compression=None,
                proxy=None,
                logger=QUIET,
            ).__enter__()
            self._answered = False
        except (OSError, WebSocketException, TimeoutError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def _ask(self, kind: str, data: dict[str, Any]) -> Answer:
        found = self._said(kind, data)
        data = found["data"]
        if found["type"] != "observation" or "observation" not in data:
            raise self._broken(f"an observation was expected, found {json.dumps(found):.100}")
        if not isinstance(data.get("done", False), bool):
            raise self._broken(f"done: found {data['done']!r:.60}, expected true or false")
        self._standing.held(self)
        return Answer(
            observation=data["observation"], reward=data.get("reward"), done=data.get("done", False)
        )

    def _said(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """The server's message to one of ours, which is no error.

        Raises:
          Refused: it takes the action for none.
          EnvFault: any other error, or no message.
        """
        found = self._exchange(kind, {"type": kind, "data": data})
        if found["type"] == "error":
            self._raise(kind, found["data"])
        return found

    def _exchange(self, kind: str, message: dict[str, Any]) -> dict[str, Any]:
        """The server's message to one of ours: a mapping with a type, and data that are a mapping.

        Raises:
          EnvFault: silence, too many bytes, or no message of the protocol.
        """
        assert self._socket is not None
        try:
            with suppress(ConnectionClosed):  # its last word may lie there: why it takes no more sessions
                self._socket.send(json.dumps(message))
            text = self._socket.recv(timeout=self._options.timeout)
        except TimeoutError:
            raise self._broken(f"no answer to {kind} within {self._options.timeout:g} s") from None
        except (OSError, WebSocketException, UnicodeDecodeError) as error:
            raise self._closed(kind, error) from None
        try:
            found = json.loads(text)
            formed = isinstance(found["type"], str) and isinstance(found["data"], dict)
        except (ValueError, KeyError, TypeError, RecursionError):
            formed, found = False, {}
        if not formed:
            raise self._broken(f"no message of OpenEnv's: found {text[:100]!r}")
        self._answered = True
        return found

    def _raise(self, kind: str, error: dict[str, Any]) -> None:
        code, words = error.get("code"), str(error.get("message"))[:200]
        if code == FULL:
            self._drop()
            raise _Full(f"{FULL}: {words}")
        if code == NOT_VALID and kind == "step":
            raise Refused(_reasons(error) or words)
        raise self._broken(f"{code}: {words}")

    def _closed(self, kind: str, error: Exception) -> EnvFault:
        """What a socket's end means: its reason stands in the server's last word, where that was heard.

        It is lost where our answer to the server's goodbye finds the socket gone: websockets then drops what
        came with the goodbye. A goodbye in place of the first answer refuses the session.
        """
        words = f"the socket closed at {kind}: {type(error).__name__}: {error}"
        refused = isinstance(error, ConnectionClosedOK) and not self._answered
        self._drop()
        if refused:
            return _Full(f"{FULL}: {words}"[:300])
        return _Closed(words[:300]) if kind == "reset" else EnvFault(words[:300])

    def _broken(self, why: str) -> EnvFault:
        self._drop()
        return EnvFault(why)

    def _drop(self) -> None:
        socket, self._socket = self._socket, None
        self._standing.left(self)
        if socket is not None:
            socket.close()


class _Full(EnvFault):
    """The server takes no more sessions."""


class _Closed(EnvFault):
    """The socket had ended before the episode began."""


def _reasons(error: dict[str, Any]) -> str:
    """What is wrong with which field of an action, as the server's checks say."""
    found = []
    errors = error.get("errors")
    for one in errors if isinstance(errors, list) else ():
        if isinstance(one, dict):
            where = one.get("loc")
            place = ".".join(map(str, where)) if isinstance(where, list) else ""
            found.append(f"{place}: {one.get('msg')}"[:100])
    return "; ".join(found[:3])
