"""Who is let in: the console's own pages with the token, and no one else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bulkmail.console import access
from bulkmail.console.guard import POLICY
from tests.console.asking import COOKIE, HOST, OWN, PORT, TOKEN, Asker

FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:80", f"127.0.0.1:{PORT}.evil.example", ""]
)
@pytest.mark.parametrize("path", ["/", "/static/x/console.css", "/r/x/events"])
async def test_foreign_host_is_refused_on_every_route(console: Asker, host: str, path: str) -> None:
    answer = await console.get(path, host=host)
    assert answer.status == 421
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]", "LOCALHOST"])
async def test_own_names_are_let_in(console: Asker, name: str) -> None:
    assert (await console.get("/", host=f"{name}:{PORT}")).status == 200


@pytest.mark.parametrize(
    "cookie", ["", f"bulkmail-{PORT}=wrong", f"bulkmail-{PORT}=", f"bulkmail-9999={TOKEN}", f"bulkmail-{PORT}=\u00e9"]
)
async def test_without_the_token_nothing_is_shown(console: Asker, cookie: str) -> None:
    for path in ("/", "/c/x", "/static/x/console.css", "/nothing"):
        answer = await console.get(path, {"cookie": cookie} if cookie else {})
        assert answer.status == 401
        assert TOKEN not in answer.text
        assert "spring" not in answer.text


async def test_token_in_the_address_becomes_a_cookie_on_a_page_that_goes_on(console: Asker) -> None:
    """Not a redirect: coming from a file, a browser keeps a Strict cookie back along one."""
    answer = await console.get(f"/?token={TOKEN}", {})
    assert answer.status == 200
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"bulkmail-{PORT}={TOKEN};")
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert 'content="0;url=/"' in answer.text
    assert TOKEN not in answer.text
    assert (await console.get("/?token=wrong", {})).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": f"http://{HOST}"},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
    ],
    ids=str,
)
async def test_post_from_another_site_is_refused(console: Asker, root: Path, headers: dict[str, str]) -> None:
    answer = await console.ask("POST", "/campaigns", {**COOKIE, **FORM, **headers}, b"name=made&from=kind:newsletter")
    assert answer.status == 403
    assert not (root / "made").exists()


@pytest.mark.parametrize("headers", [OWN, {"origin": f"http://{HOST}"}], ids=str)
async def test_post_from_an_own_page_is_done(console: Asker, root: Path, headers: dict[str, str]) -> None:
    answer = await console.ask("POST", "/campaigns", {**COOKIE, **FORM, **headers}, b"name=made&from=kind:newsletter")
    assert answer.status == 303
    assert (root / "made" / "campaign.toml").is_file()


async def test_every_answer_keeps_other_sites_and_caches_out(console: Asker) -> None:
    campaign = re.findall(r'href="(/c/[^"/]+)"', (await console.get("/")).text)[0]
    for path in ("/", campaign, f"{campaign}/start", f"{campaign}/check", f"{campaign}/settings", "/nothing"):
        answer = await console.get(path)
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        # What the policy forbids would do nothing, so there is none.
        assert not re.search(r"<script(?![^>]*src=)|<[^>]*\sstyle=|<[^>]*\son\w+=", answer.text), path
        assert len(answer.body) < 60_000


async def test_other_methods_and_sockets_are_refused(console: Asker) -> None:
    assert (await console.ask("DELETE", "/", {**COOKIE, **OWN})).status == 405
    sent = []

    async def send(message: object) -> None:
        sent.append(message)

    await console.app({"type": "websocket", "headers": []}, None, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.slow
async def test_form_that_is_too_long_is_refused(console: Asker) -> None:
    assert (await console.post("/campaigns", {"name": "x" * 13_000_000, "from": "kind:newsletter"})).status == 413


def test_token_and_port_are_kept_for_the_owner_alone(tmp_path: Path) -> None:
    token = access.keep_token(tmp_path).reveal()
    assert len(token) >= 43
    assert access.keep_token(tmp_path).reveal() == token
    assert access.keep_token(tmp_path, renew=True).reveal() != token
    assert (tmp_path / access.TOKEN_FILE).stat().st_mode & 0o777 == 0o600
    (tmp_path / access.TOKEN_FILE).chmod(0o644)  # someone else may know it by now
    kept = (tmp_path / access.TOKEN_FILE).read_text()
    assert access.keep_token(tmp_path).reveal() != kept
    assert access.kept_port(tmp_path) == 8026
    access.keep_port(tmp_path, 8030)
    assert access.kept_port(tmp_path) == 8030
    opener = access.write_opener(tmp_path, 'http://127.0.0.1:8026/?token="><script>')
    assert opener.stat().st_mode & 0o777 == 0o600
    assert "<script>" not in opener.read_text()
