"""Asking for mail exchangers: once each, never for long, and never to a campaign's harm."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from bulkmail.smtp import dialling as module
from bulkmail.smtp.dialling import Exchangers


class Names:
    """A name server in memory that counts what it is asked."""

    def __init__(self, records: dict[str, tuple[str, ...]], *, delay: float = 0.0) -> None:
        self.records = records
        self.asked: list[str] = []
        self.delay = delay

    async def __call__(self, domain: str) -> tuple[str, ...]:
        self.asked.append(domain)
        await anyio.sleep(self.delay)
        return self.records[domain]


async def test_exchangers_are_asked_for_once() -> None:
    names = Names({"example.org": ("aspmx.l.google.com",)})
    exchangers = Exchangers(names)
    assert exchangers.known("example.org") is None
    assert await exchangers.find("example.org") == ("aspmx.l.google.com",)
    assert await exchangers.find("example.org") == exchangers.known("example.org") == ("aspmx.l.google.com",)
    assert names.asked == ["example.org"]


async def test_exchangers_of_a_domain_that_many_want_are_asked_for_once() -> None:
    names = Names({"example.org": ("mx",)}, delay=0.01)
    exchangers, found = Exchangers(names), list[tuple[str, ...]]()

    async def want() -> None:
        found.append(await exchangers.find("example.org"))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(want)
    assert found == [("mx",)] * 10
    assert names.asked == ["example.org"]


async def test_domain_that_does_not_answer_has_none_and_is_not_asked_again() -> None:
    names = Names({}, delay=0.0)
    exchangers = Exchangers(names)
    assert await exchangers.find("example.org") == await exchangers.find("example.org") == ()
    assert names.asked == ["example.org"]


async def test_slow_name_server_is_not_waited_for() -> None:
    names = Names({"example.org": ("mx",)}, delay=60.0)
    assert await Exchangers(names, timeout=0.01).find("example.org") == ()


async def test_those_who_waits_asks_himself_when_the_first_is_cancelled() -> None:
    names = Names({"example.org": ("mx",)}, delay=0.05)
    exchangers, found = Exchangers(names), list[tuple[str, ...]]()

    async def want() -> None:
        found.append(await exchangers.find("example.org"))

    async with anyio.create_task_group() as group:
        with anyio.move_on_after(0.01):
            group.start_soon(want_after, want)
            await exchangers.find("example.org")
    assert found == [("mx",)]
    assert names.asked == ["example.org"] * 2


async def want_after(want: module.Callable[[], module.Awaitable[None]]) -> None:
    await anyio.lowlevel.checkpoint()
    await want()


async def test_exchangers_forget_what_was_asked_for_longest_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    exchangers = Exchangers(Names({name: (name,) for name in "abc"}))
    for name in ("a", "b", "a", "c"):
        await exchangers.find(name)
    assert (exchangers.known("a"), exchangers.known("b"), exchangers.known("c")) == (("a",), None, ("c",))


async def test_answers_of_dns_are_put_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    import dns.asyncresolver
    import dns.rdata

    async def resolve(domain: str, kind: str, *, lifetime: float) -> list[dns.rdata.Rdata]:
        assert (domain, kind) == ("example.org", "MX")
        texts = ["20 MX2.example.org.", "10 mx1.example.org.", "30 ."]
        return [dns.rdata.from_text("IN", "MX", text) for text in texts]

    monkeypatch.setattr(dns.asyncresolver, "resolve", resolve)
    assert await module.ask_dns("example.org") == ("mx1.example.org", "mx2.example.org")
