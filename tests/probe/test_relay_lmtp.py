"""Looking at a relay by LMTP, over a Unix socket, and with REQUIRETLS asked for."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme

from bulkmail.model.recipient import Address
from bulkmail.model.relay import Relay
from bulkmail.probe.relay_probe import look_at
from bulkmail.settings.presets import known_feedback
from bulkmail.smtp.opening import Timeouts
from bulkmail.smtp.peer_policy import Mode
from bulkmail.testing import ScriptedRelay
from tests.probe.test_relay import trouble_of

FEEDBACK = known_feedback()  # read before any loop runs
HASTY = Timeouts(connect=2, greeting=0.2, ehlo=1, mail=1, quit=1)
SHOP = Address.parse("shop@example.com")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough a name for a Unix socket."""
    with TemporaryDirectory(prefix="bm-") as name:
        yield Path(name)


async def test_lmtp_server_is_greeted_by_lhlo_and_never_sent_chunks() -> None:
    async with ScriptedRelay(is_lmtp=True, extensions=("PIPELINING", "CHUNKING")) as relay:
        facts = await look_at(
            Relay.parse(f"lmtp://localhost:{relay.port}"), None, feedback=FEEDBACK, sender=SHOP, timeouts=HASTY
        )
    assert facts.is_usable and facts.mode is Mode.PIPELINING
    assert {command.split()[0] for command in relay.commands} == {"LHLO", "NOOP", "MAIL", "RSET", "QUIT"}


@pytest.mark.skipif(sys.platform == "win32", reason="asyncio has no Unix sockets on Windows")
async def test_socket_is_looked_at_or_reported_missing(folder: Path) -> None:
    async with ScriptedRelay(socket_path=str(folder / "smtp")):
        facts = await look_at(Relay.parse(f"smtp+unix://{folder}/smtp"), None, feedback=FEEDBACK, timeouts=HASTY)
        assert facts.is_usable and facts.server == "relay.test"
    facts = await look_at(Relay.parse(f"lmtp://{folder}/none"), None, feedback=FEEDBACK, timeouts=HASTY)
    assert trouble_of(facts).what == f"there is no socket {folder}/none."
    assert "socket" in trouble_of(facts).fix


@pytest.mark.parametrize("extensions", [("REQUIRETLS",), ()], ids=["offered", "not offered"])
async def test_requiretls_is_looked_for(extensions: tuple[str, ...], tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with ScriptedRelay(tls=context, extensions=extensions) as relay:
        url = f"smtp://localhost:{relay.port}?requiretls=yes&ca_file={tmp_path / 'ca.pem'}"
        facts = await look_at(Relay.parse(url), None, feedback=FEEDBACK, timeouts=HASTY)
    assert facts.is_usable == bool(extensions)
    if facts.obstacle is not None:
        assert "does not offer REQUIRETLS" in trouble_of(facts).what and "requiretls" in trouble_of(facts).fix
