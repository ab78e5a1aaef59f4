"""What all sessions of one server share in a process: how long it has been away, and who has a session."""

import threading
import time
from typing import Protocol

from coevo_jax.config.strict import ConfigError

FIRST_PAUSE, LONGEST_PAUSE = 0.01, 2.0  # seconds between two tries to connect; doubled from one to the next
PATIENCE = 0.04  # a pause after which a full server is given room: until then, sessions of ours may end


class Holder(Protocol):
    """A session that holds a place on the server."""

    def give_up_place(self) -> bool:
        """Close the socket unless a call is under way; whether it was closed."""
        ...


class Standing:
    """How a server stands, for all sessions of it in this process."""

    def __init__(self, url: str):
        self.url = url
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._holders: dict[Holder, float] = {}  # and when each was last used

    def held(self, holder: Holder) -> None:
        """Note that a session is open and was used now."""
        with self._lock:
            self._holders[holder] = time.monotonic()
            self._away_since = None

    def left(self, holder: Holder) -> None:
        """Note that a session has closed."""
        with self._lock:
            self._holders.pop(holder, None)

    def failed(self, why: str, give_up: float) -> None:
        """Note that no session could be had.

        Raises:
          ConfigError: for `give_up` seconds nobody has had one; the run is to stop.
        """
        with self._lock:
            now = time.monotonic()
            self._away_since = now if self._away_since is None else self._away_since
            away = now - self._away_since
        if away >= give_up:
            raise ConfigError(
                f"env.options.url: {self.url}: no session for {away:.0f} s (env.options.give_up): {why}; "
                "start the server again and resume the run, or give it room for more sessions"
            )

    def make_room(self, for_whom: Holder) -> bool:
        """Take the place of the session that was not used for longest; whether there was one to take."""
        with self._lock:
            others = sorted(
                (one for one in self._holders if one is not for_whom), key=lambda one: self._holders[one]
            )
        return any(one.give_up_place() for one in others)


_STANDINGS: dict[str, Standing] = {}
_MAKING = threading.Lock()


def standing_of(url: str) -> Standing:
    """The one record of a server that all its sessions in this process share."""
    with _MAKING:
        return _STANDINGS.setdefault(url, Standing(url))
