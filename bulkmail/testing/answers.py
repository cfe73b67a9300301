"""What a scripted relay may do when it is its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hang:
    """Says nothing any more, and reads no more than its buffers hold.

    `keeps`: at the end of a message, the message is kept all the same.
    """

    keeps: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """Closes the connection without a word; `keeps` as for `Hang`."""

    keeps: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """Resets the connection (TCP RST); `keeps` as for `Hang`."""

    keeps: bool = False


@dataclass(frozen=True, slots=True)
class Slow:
    """For `body`: reads at most `size` bytes, then pauses, and so on."""

    size: int
    pause: float = 0.01


@dataclass(frozen=True, slots=True)
class Split:
    """Says `text` byte by byte, each in a segment of its own."""

    text: str


@dataclass(frozen=True, slots=True)
class Late:
    """Says `text` after `seconds`."""

    seconds: float
    text: str


Answer = str | bytes | Hang | Drop | Reset | Slow | Split | Late
"""Text is a reply, its lines parted by `\\n`; bytes are sent as they are, to break the rules with."""

Script = Answer | Iterable[Answer | None] | Callable[[str], Answer | None] | None
"""One answer for ever; or some, used up in order; or a function of the path.  None stands for the usual answer."""


class Lines:
    """A script with a finger on the next answer, shared by all sessions of a relay."""

    def __init__(self, script: Script) -> None:
        self._answer: Answer | None = None
        self._function: Callable[[str], Answer | None] | None = None
        self._rest: Iterator[Answer | None] = iter(())
        if script is None or isinstance(script, Answer):
            self._answer = script
        elif callable(script):
            self._function = script
        else:
            self._rest = iter(script)

    def next(self, argument: str) -> Answer | None:
        """The next answer; None for the usual one."""
        if self._function is not None:
            return self._function(argument)
        return next(self._rest, self._answer)


def to_bytes(answer: str | bytes) -> bytes:
    """`answer` as it goes over the wire."""
    if isinstance(answer, bytes):
        return answer
    return "".join(f"{line}\r\n" for line in answer.split("\n")).encode()


def code(answer: Answer) -> str:
    """The first three characters said, `""` for silence."""
    match answer:
        case str():
            return answer[:3]
        case bytes():
            return answer[:3].decode("ascii", "replace")
        case Split() | Late():
            return answer.text[:3]
        case _:
            return ""
