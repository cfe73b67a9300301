"""The places that a secret may come from, as settings and programs name them."""

from __future__ import annotations

from dataclasses import field
from enum import Enum

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy_dataclass import dataclass


class SecretKind(Enum):
    """What kind of place it is; the value is what its name begins with."""

    ENV = "env"  # a variable of the environment
    FILE = "file"
    COMMAND = "command"  # what it prints
    KEYRING = "keyring"  # of the system, under the relay's host and user
    URL = "url"  # an address that is written down as it is: it may hold a secret, and need not


@dataclass(frozen=True, slots=True)
class SecretSource:
    """`"env:NAME"`, `"file:PATH"`, `"command:…"`, `"keyring:"` or `"url:https://…"`, taken apart."""

    kind: SecretKind
    where: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> SecretSource | None:
        """The place that `text` names; None if it is empty.  Raises `ConfigError` that does not repeat it."""
        if not text:
            return None
        kind, _, where = text.partition(":")
        try:
            return cls(SecretKind(kind), where)
        except ValueError:
            raise ConfigError(
                "that is no place a secret can come from", hint='write "env:NAME", "file:PATH" or "command:PROGRAM"'
            ) from None

    def __str__(self) -> str:
        return f"{self.kind.value}:{self.where}"


def commands_of(*places: str) -> tuple[str, ...]:
    """The commands among `places`, each as it is named there."""
    sources = map(SecretSource.parse, places)
    return tuple(each.where for each in sources if each is not None and each.kind is SecretKind.COMMAND)
