"""FaultInjector on request: which mail a sandbox refuses, defers or leaves in doubt, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import field
from hashlib import blake2b

from bulkmail.model.lazy import dataclass
from bulkmail.model.rate import Rate


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong.  `reject` and `defer` are shares of recipients and of their tries, `drop_after_dot` of messages.

    A message beyond `throttle` is deferred as a provider does it.  Random numbers are drawn per address and attempt, so
    the order in which mail arrives does not matter: the same `seed` does the same to the same list.
    """

    reject: float = 0.0
    defer: float = 0.0
    drop_after_dot: float = 0.0
    throttle: Rate | None = None
    seed: int = 0

    def __bool__(self) -> bool:
        """Whether anything goes wrong at all."""
        return bool(self.reject or self.defer or self.drop_after_dot or self.throttle)

    def __str__(self) -> str:
        shares = {"rejected": self.reject, "deferred": self.defer, "left without a reply": self.drop_after_dot}
        said = [f"{share * 100:g} % {what}" for what, share in shares.items() if share]
        said += [f"at most {self.throttle}"] if self.throttle else []
        return ", ".join(said) or "none"


@dataclass(slots=True)
class FaultInjector:
    """The faults of one sandbox, and how often each has happened."""

    faults: Faults
    refused: int = 0
    deferred: int = 0
    throttled: int = 0
    dropped: int = 0
    dropped_kept: int = 0
    _tries: Counter[str] = field(default_factory=Counter)
    _ends: Counter[str] = field(default_factory=Counter)
    _tat: float = float("-inf")

    def at_sender(self, now: float) -> str:
        """The refusal of a transaction that is one too many; empty when it may go on.  `now` is in seconds."""
        rate = self.faults.throttle
        if rate is None:
            return ""
        if rate.wait(self._tat, now) > 0:
            self.throttled += 1
            return "451 4.7.1 too many messages, slow down (as the sandbox was asked to say)"
        self._tat = rate.take(self._tat, now)
        return ""

    def at_recipient(self, address: str) -> str:
        """The refusal of a recipient; empty when it is taken."""
        if self._jitter("reject", address) < self.faults.reject:
            self.refused += 1
            return "550 5.1.1 no such user (as the sandbox was asked to say)"
        self._tries[address] += 1
        if self._jitter("defer", f"{address} {self._tries[address]}") < self.faults.defer:
            self.deferred += 1
            return "451 4.3.0 try again later (as the sandbox was asked to say)"
        return ""

    def at_end(self, address: str) -> tuple[bool, bool]:
        """Whether the connection drops before the reply to a message, and whether the message is kept all the same."""
        if not self.faults.drop_after_dot:
            return False, True
        self._ends[address] += 1
        label = f"{address} {self._ends[address]}"
        if self._jitter("drop", label) >= self.faults.drop_after_dot:
            return False, True
        is_kept = self._jitter("keep", label) < 0.5
        self.dropped += 1
        self.dropped_kept += is_kept
        return True, is_kept

    def summary(self) -> list[str]:
        """What happened, in words."""
        numbers = {
            "rejected": self.refused,
            "deferred": self.deferred,
            "throttled": self.throttled,
            "left without a reply": self.dropped,
        }
        said = [f"{number:,} {what}" for what, number in numbers.items() if number]
        if self.dropped:
            said[-1] += f" ({self.dropped_kept:,} of them kept)"
        return said

    def _jitter(self, kind: str, label: str) -> float:
        """A number in [0, 1) that depends on nothing but seed, kind and label."""
        data = f"{self.faults.seed}\0{kind}\0{label}".encode("utf-8", "surrogateescape")
        return int.from_bytes(blake2b(data, digest_size=8).digest(), "big") / 2**64
