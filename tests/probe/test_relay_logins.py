"""Looking at a relay that is logged in to by token or SCRAM, or reached through a proxy."""

from __future__ import annotations

import pytest

from bulkmail.model.outcome import Breakage
from bulkmail.model.relay import Kind, Relay, Secret, Tls
from bulkmail.probe.relay_probe import Login, RelayFacts, look_at
from bulkmail.settings.presets import known_feedback
from bulkmail.smtp.credentials import AccessToken, Credentials, TokenError, Tokens
from bulkmail.testing import ScriptedRelay
from tests.probe.test_relay import trouble_of
from tests.smtp.test_proxying import HOST, Proxy

FEEDBACK = known_feedback()  # read before any loop runs


def relay_at(port: int, **more: object) -> Relay:
    return Relay(
        Kind.SMTP,
        **{"host": "127.0.0.1", "port": port, "tls": Tls.OFF, "username": "ann", "plaintext_login": True, **more},  # type: ignore[arg-type]
    )


async def look(server: ScriptedRelay, who: Credentials, **more: object) -> RelayFacts:
    return await look_at(relay_at(server.port, **more), who, feedback=FEEDBACK)


async def test_login_by_token_is_tried_and_named() -> None:
    who = Credentials("ann", tokens=Tokens(lambda: AccessToken(Secret("abc"))))
    async with ScriptedRelay(auth={"ann": "abc"}, mechanisms=["PLAIN", "XOAUTH2"]) as server:
        facts = await look(server, who, token_from="file:token")
    assert (facts.login, facts.mechanism, facts.obstacle) == (Login.WORKS, "XOAUTH2", None)


async def test_token_that_no_one_gives_is_the_trouble() -> None:
    def fetch() -> AccessToken:
        raise TokenError(Breakage.NO_TOKEN, "example.com gives us no access token: 400 invalid_grant")

    async with ScriptedRelay(auth={"ann": "abc"}, mechanisms=["XOAUTH2"]) as server:
        facts = await look(server, Credentials("ann", tokens=Tokens(fetch)), token_from="file:token")
    assert facts.login is Login.REFUSED
    assert "There is no access token to log in with: example.com gives us" in trouble_of(facts).what
    assert server.auth_attempts == 0


async def test_server_that_cannot_prove_itself_is_the_trouble() -> None:
    async with ScriptedRelay(auth={"ann": "other"}, mechanisms=["SCRAM-SHA-256"], login="235 fine") as server:
        facts = await look(server, Credentials("ann", Secret("ours")))
    assert facts.login is Login.REFUSED
    assert "perhaps not your provider's server" in trouble_of(facts).what


@pytest.mark.parametrize("is_there", [True, False])
async def test_relay_behind_a_proxy_is_looked_at(is_there: bool) -> None:
    async with ScriptedRelay() as server, Proxy(port=server.port, refusal=0 if is_there else 4).running() as proxy:
        relay = relay_at(2525, host=HOST, username="", proxy=f"socks5://127.0.0.1:{proxy.port}")
        facts = await look_at(relay, None, feedback=FEEDBACK)
    if is_there:
        assert facts.is_usable
        assert facts.server == "relay.test"
    else:
        assert f"the proxy 127.0.0.1 port {proxy.port} does not connect us" in trouble_of(facts).what
