"""How many Python calls of bulkmail one message costs while a run sends, and how often they cross from room to room.

    python benchmarks/calls.py [--general] [--list]

Counted, not timed: 100 messages and 300 over one connection to a scripted server, and the difference divided by 200.
With --general a rate, the limits of a provider and a quota hold, none of which slows anything down.
With --list every function that is called at least every second message.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bulkmail
from bulkmail.engine.contracts import Ending
from bulkmail.engine.engine import Engine
from bulkmail.model.pace import Pace
from bulkmail.model.quota import Quota
from bulkmail.model.rate import Rate
from bulkmail.model.route import MailboxProvider, MailboxProviders, ProviderLimits
from bulkmail.testing import ScriptedRelay

Function = tuple[str, str, str]  # room, module, name
ROOMS = re.compile(r"bulkmail/(\w+)/(?:\w+/)*(\w+)\.py$")
FEW, MANY = 100, 300
FREE = ProviderLimits(Rate(100_000.0, burst=1_000), connections=10)
EXAMPLE = MailboxProvider("example", frozenset(["example.net"]), limits=FREE)
GENERAL = Pace(
    wait=0,
    rate=Rate(100_000.0, burst=1_000),
    quota=Quota(per_hour=1_000_000),
    mailbox_providers=MailboxProviders({"example": EXAMPLE}),
)


class Counting:
    """Counts the calls of bulkmail's own functions between the start and the end of an engine's run."""

    def __init__(self) -> None:
        self.calls: Counter[Function] = Counter()
        self.changes = 0  # of room
        self._room = ""
        self._known: dict[CodeType, Function | None] = {}

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code not in self._known:
            found = ROOMS.search(code.co_filename)
            is_ours = found is not None and found[1] != "testing"  # which is the server
            self._known[code] = (found[1], found[2], code.co_qualname) if found and is_ours else None
        function = self._known[code]
        if function is not None:
            self.calls[function] += 1
            self.changes += function[0] != self._room
            self._room = function[0]


def count(messages: int, pace: Pace) -> Counting:
    counting = Counting()
    original = Engine.run

    async def run(self: Engine) -> Ending:
        sys.setprofile(counting)
        try:
            return await original(self)
        finally:
            sys.setprofile(None)

    async def send() -> int:
        campaign = bulkmail.compose(from_="shop@example.com", subject="Hi {{ n }}", text="Hello {{ n }}")
        people = [{"email": f"p{number}@example.net", "n": f"N{number}"} for number in range(messages)]
        async with ScriptedRelay(extensions=("PIPELINING", "SIZE 33554432", "8BITMIME")) as relay:
            url = f"smtp://{relay.host}:{relay.port}?tls=off&connections=1"
            return (await bulkmail.Mailer(url, pace=pace).send(campaign, people)).accepted

    Engine.run = run  # type: ignore[method-assign]
    try:
        accepted = asyncio.run(send())
    finally:
        Engine.run = original  # type: ignore[method-assign]
    if accepted != messages:
        sys.exit(f"{accepted} of {messages} messages accepted")
    return counting


def main() -> None:
    pace = GENERAL if "--general" in sys.argv[1:] else Pace(wait=0)
    few, many = count(FEW, pace), count(MANY, pace)
    per = {function: (many.calls[function] - few.calls[function]) / (MANY - FEW) for function in many.calls}
    changes = (many.changes - few.changes) / (MANY - FEW)
    print(f"{sum(per.values()):.1f} Python calls a message, {changes:.1f} changes of room")
    rooms: Counter[str] = Counter()
    for (room, _, _), calls in per.items():
        rooms[room] += calls  # type: ignore[assignment]
    print(", ".join(f"{room} {calls:.1f}" for room, calls in rooms.most_common()))
    if "--list" in sys.argv[1:]:
        for (room, module, name), calls in sorted(per.items(), key=lambda each: -each[1]):
            if calls >= 0.5:
                print(f"{calls:6.2f}  {room}/{module} {name}")


if __name__ == "__main__":
    main()
