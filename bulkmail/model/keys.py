"""The keys that messages are signed with: passed to the code that writes messages, and stored nowhere."""

from __future__ import annotations

from dataclasses import dataclass

from bulkmail.model.relay import Secret


@dataclass(frozen=True, slots=True)
class BounceKey:
    """`key`, in hexadecimal, signs the tokens of the run that has the number `run` in the register of runs, from 1.

    A run that reaches no recipient has the number 0.
    """

    run: int
    key: Secret


@dataclass(frozen=True, slots=True)
class Keys:
    """`unsubscribe` signs the tokens of `Campaign.unsubscribe`; `dkim` are private keys in PEM, one for each `Dkim`.

    `bounce` signs what bounces are matched by; without it tokens are made that match nothing, as for a preview.
    """

    unsubscribe: Secret | None = None
    dkim: tuple[Secret, ...] = ()
    bounce: BounceKey | None = None


NO_KEYS = Keys()
