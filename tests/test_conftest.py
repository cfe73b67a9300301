"""The shared fixtures: the watch over the loop sees what it must and lets through what it may; factories make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from blockbuster import BlockingError
from hypothesis import settings

import tests.conftest
from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.recipient import Recipient

OUTBOX = sorted((tests.conftest.PACKAGE / "outbox").rglob("*.py"))


def nap_in(module: Path) -> None:
    """Blocks from code that says it stands in `module`."""
    names: dict[str, object] = {}
    exec(compile("import time\ndef nap():\n    time.sleep(0)\n", str(module), "exec"), names)  # noqa: S102 -- our own
    nap = names["nap"]
    assert callable(nap)
    nap()


async def test_watch_sees_bulkmail_block_the_loop() -> None:
    with pytest.raises(BlockingError, match=r"time\.sleep"):
        nap_in(tests.conftest.PACKAGE / "engine/nap.py")


async def test_watch_lets_tests_block() -> None:
    nap_in(Path(__file__))


@pytest.mark.parametrize("module", OUTBOX, ids=lambda module: module.name)
async def test_watch_lets_the_outbox_block(module: Path) -> None:
    nap_in(module)


def test_watch_pauses_where_there_is_no_loop() -> None:
    nap_in(tests.conftest.PACKAGE / "engine/nap.py")


def test_hypothesis_runs_the_profile_that_was_asked_for() -> None:
    assert settings().max_examples == {"dev": 50, "ci": 300}[tests.conftest.PROFILE]


def test_recipient_factory_adds_cells(make_recipient: Callable[..., Recipient]) -> None:
    made = make_recipient("bob@example.net", "Bob", line=7, town="Bern")
    assert (made.address.wire, made.name, made.place.line) == ("bob@example.net", "Bob", 7)
    assert made.fields == {"email": "bob@example.net", "name": "Bob", "town": "Bern"}


def test_campaign_factory_makes_templates(make_campaign: Callable[..., Campaign], campaign: Campaign) -> None:
    made = make_campaign(subject="Hi", name="summer", html=None)
    assert (made.subject.text, made.name, made.text) == ("Hi", "summer", campaign.text)
    assert isinstance(make_campaign(html="<p>").html, Template)


def test_message_factory_takes_an_envelope(make_message: Callable[..., Message], message: Message) -> None:
    made = make_message("bob@example.net", needs_smtputf8=True)
    assert made.envelope == Envelope("shop@example.org", "bob@example.net")
    assert (made.needs_smtputf8, made.buffers) == (True, message.buffers)
