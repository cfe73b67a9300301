"""A whole run that logs in by token: one renewal for all connections, and no secret in what is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

import bulkmail
from bulkmail.model.relay import Kind, Oauth, Relay, Tls
from bulkmail.testing import ScriptedRelay
from tests.smtp.test_refresh import GOOD, Provider

MESSAGE = bulkmail.compose(from_="shop@example.com", subject="Hello", text="We are open.")
PEOPLE = [{"email": f"p{number}@example.com"} for number in range(40)]


def token_relay(port: int, **more: object) -> Relay:
    return Relay(
        Kind.SMTP,
        host="127.0.0.1",
        port=port,
        username="ann",
        tls=Tls.OFF,
        plaintext_login=True,
        **more,  # type: ignore[arg-type]
    )


def grant(provider: Provider) -> Oauth:
    return Oauth(provider.url, "shop", refresh_token_from="env:SHOP_REFRESH", client_secret_from="env:SHOP_SECRET")


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_REFRESH", "hunter2-refresh")
    monkeypatch.setenv("SHOP_SECRET", "hunter2-secret")


@pytest.mark.slow
async def test_run_with_a_refresh_grant_asks_for_one_token(tmp_path: Path) -> None:
    outbox = tmp_path / "run.outbox"
    with Provider((200, {**GOOD, "access_token": "hunter2-token"})).running() as provider:
        async with ScriptedRelay(auth={"ann": "hunter2-token"}, mechanisms=["OAUTHBEARER"]) as relay:
            report = await bulkmail.send(
                MESSAGE, PEOPLE, relay=token_relay(relay.port, oauth=grant(provider)), outbox=outbox
            )
    assert report.accepted == 40
    assert len(provider.asked) == 1
    assert b"hunter2" not in outbox.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "words"), [(400, "gives us no access token: 400 invalid_grant"), (503, "gives us no access token: 503")]
)
async def test_run_without_a_token_stops_and_says_why(status: int, words: str) -> None:
    with Provider((status, {"error": "invalid_grant"} if status == 400 else b"")).running() as provider:
        async with ScriptedRelay(auth={"ann": "x"}, mechanisms=["OAUTHBEARER"]) as relay:
            with pytest.raises(bulkmail.BulkmailError, match=words) as caught:
                await bulkmail.send(MESSAGE, PEOPLE, relay=token_relay(relay.port, oauth=grant(provider)))
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    assert relay.sessions == 0


@pytest.mark.slow
async def test_run_with_a_token_file_stops_at_a_token_that_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old\n")
    path.chmod(0o600)
    async with ScriptedRelay(auth={"ann": "new"}, mechanisms=["XOAUTH2"]) as relay:
        with pytest.raises(bulkmail.BulkmailError, match="refused the login"):
            await bulkmail.send(MESSAGE, PEOPLE, relay=token_relay(relay.port, token_from=f"file:{path}"))
        assert relay.auth_attempts == 1
        path.write_text("new\n")
        await bulkmail.send(MESSAGE, PEOPLE, relay=token_relay(relay.port, token_from=f"file:{path}"))
    assert len(relay.messages) == 40
