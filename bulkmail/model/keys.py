"""The keys that letters are signed with: given to whoever writes them, and kept nowhere."""

from __future__ import annotations

from dataclasses import dataclass

from bulkmail.model.relay import Secret


@dataclass(frozen=True, slots=True)
class Keys:
    """`unsubscribe` signs the tokens of `Campaign.unsubscribe`; `dkim` are private keys in PEM, one for each `Dkim`."""

    unsubscribe: Secret | None = None
    dkim: tuple[Secret, ...] = ()


NO_KEYS = Keys()
