"""Who set which key of a config."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Origin:
    """Who set each dotted key, and whose settings are refused where they are idle."""

    of: Mapping[str, str]
    file: str | None  # the config itself, without the files it extends; None lets all that it sets pass
    overrides: frozenset[str]

    def chose(self, key: str, decided_by: tuple[str, ...]) -> bool:
        """Whether a key was set by the config itself or an override, and not made idle by a later one."""
        who = self.of.get(key)
        if who in self.overrides:
            return True
        return who is not None and who == self.file and not any(map(self._overridden, decided_by))

    def _overridden(self, key: str) -> bool:
        return any(
            who in self.overrides for other, who in self.of.items() if f"{other}.".startswith(f"{key}.")
        )
