"""A TLS context that the program brings, and the replies of the relay in the report."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent

import pytest
import trustme

import bulkmail
from bulkmail.testing import ScriptedRelay

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")


@pytest.fixture
def server_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What the server shows; `house.pem` in the current folder is whom it is vouched for by."""
    monkeypatch.chdir(tmp_path)
    authority = trustme.CA()
    authority.cert_pem.write_to_path("house.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def campaign() -> bulkmail.Campaign:
    return bulkmail.compose(from_="Shop <shop@shop.example>", subject="News", text="Hello\n", bcc="all@shop.example")


@pytest.fixture
def trusting(server_side: ssl.SSLContext) -> Iterator[ssl.SSLContext]:
    return ssl.create_default_context(cafile="house.pem")  # type: ignore[return-value]


@pytest.mark.slow
async def test_program_brings_whom_to_trust(
    server_side: ssl.SSLContext, trusting: ssl.SSLContext, campaign: bulkmail.Campaign
) -> None:
    people = [{"email": "ann@example.com"}, {"email": "bob@example.com"}]
    async with ScriptedRelay(tls=server_side, end=["250 2.0.0 queued as A1", "250 2.0.0 queued as B2"]) as relay:
        url = f"smtp://127.0.0.1:{relay.port}?connections=1"
        report = await bulkmail.Mailer(url, tls_context={url.partition("?")[0]: trusting}).send(campaign, people)
        with pytest.raises(bulkmail.SendingStopped):
            await bulkmail.Mailer(url, pace=bulkmail.Pace(patience=0.0)).send(campaign, people)
    found = [(each.address, each.code, each.reply.rpartition(" ")[2]) for each in report.accepted_replies()]
    assert found == [
        ("ann@example.com", 250, "A1"), ("all@shop.example", 250, "A1"),
        ("bob@example.com", 250, "B2"), ("all@shop.example", 250, "B2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "kind", "what"),
    [
        ("smtp://mail.example.com?tls=off", ssl.PROTOCOL_TLS_CLIENT, "no relay speaks TLS"),
        ("sandbox:", ssl.PROTOCOL_TLS_CLIENT, "no relay speaks TLS"),
        ("smtp://mail.example.com", ssl.PROTOCOL_TLS_SERVER, "is one for a server"),
        ("smtp://mail.example.com?ca_file=house.pem", ssl.PROTOCOL_TLS_CLIENT, "which says that itself"),
    ],
)
def test_context_that_is_of_no_use_is_refused(url: str, kind: int, what: str) -> None:
    with pytest.raises(bulkmail.ConfigError, match=what):
        bulkmail.Mailer(url, tls_context=ssl.SSLContext(kind))


def test_context_for_no_relay_is_refused() -> None:
    with pytest.raises(bulkmail.ConfigError, match="which is no relay"):
        bulkmail.Mailer("smtp://a.example", tls_context={"spare": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)})


async def test_guide_example_runs(server_side: ssl.SSLContext, campaign: bulkmail.Campaign) -> None:
    section = GUIDE.partition("## TLS of your own\n")[2].partition("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    async with ScriptedRelay(tls=server_side, implicit=True) as relay:
        source = f"async def example():\n{indent(example, '    ')}    return queued\n".replace(":465", f":{relay.port}")
        scope: dict[str, object] = {"ssl": ssl, "bulkmail": bulkmail, "campaign": campaign}
        scope["people"] = [{"email": "ann@example.com"}]
        exec(compile(source, "guide.md", "exec"), scope)  # noqa: S102 - ours
        assert set(await scope["example"]()) == {"ann@example.com", "all@shop.example"}  # type: ignore[operator]
