"""The filter `qr`: a picture of the row's own, brought along with the page that shows it."""

from __future__ import annotations

import email
import email.policy
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bulkmail.message.compose.composer import Composer
from bulkmail.model.campaign import Campaign, InlineImage, Template
from bulkmail.model.errors import ConfigError, TemplateError
from bulkmail.model.recipient import Address, Place, Recipient

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
PAGE = Campaign(
    "tickets",
    Template("from", "shop@shop.example"),
    Template("subject", "Your ticket"),
    html=Template("page.html", '<p>Show this:</p>\n<p><img src="{{ ticket | qr }}" alt="{{ ticket }}"></p>\n'),
)


def compose(campaign: Campaign, **fields: object) -> email.message.EmailMessage:
    composer = Composer(campaign, run_id="r")
    recipient = Recipient(Address.parse("ann@example.com"), "", fields, Place("list.csv", 2))
    composer.check(recipient)
    made = [composer.compose(recipient, row=3, forward_path="ann@example.com", date=1e9) for _ in range(2)]
    assert made[0] == made[1]
    found = email.message_from_bytes(b"".join(made[0].buffers), policy=email.policy.default)
    assert not [defect for part in found.walk() for defect in part.defects]
    return found


def pictures(message: email.message.EmailMessage) -> dict[str, bytes]:
    return {
        str(part["Content-ID"]).strip("<>"): part.get_content()
        for part in message.walk()
        if part.get_content_maintype() == "image"
    }


def shown(message: email.message.EmailMessage) -> list[str]:
    html = message.get_body(("html",))
    assert html is not None
    return re.findall(r'src="cid:([^"]+)"', html.get_content())


@pytest.mark.slow
def test_page_shows_the_code_that_the_message_brings_along() -> None:
    message = compose(PAGE, ticket="https://shop.example/t/42")
    found = pictures(message)
    assert list(found) == shown(message)
    assert next(iter(found.values())).startswith(b"\x89PNG\r\n")
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png",
    ]  # fmt: skip


def test_each_row_has_its_own_code_and_a_code_shown_twice_is_there_once() -> None:
    twice = replace(
        PAGE, html=Template("page.html", '<img src="{{ a | qr }}"><img src="{{ a | qr }}"><img src="{{ b | qr(3) }}">')
    )
    message = compose(twice, a="x", b="y")
    assert len(pictures(message)) == 2
    assert len(shown(message)) == 3
    assert set(pictures(compose(twice, a="z", b="y"))) != set(pictures(message))


def test_code_stands_beside_other_pictures_and_may_be_missing() -> None:
    page = '<img src="logo.png" alt="x">{% if ticket %}<img src="{{ ticket | qr }}" alt="y">{% endif %}'
    both = replace(
        PAGE, html=Template("page.html", page), images=(InlineImage("logo.png", "logo.png", "image/png", b"PNG"),)
    )
    assert len(pictures(compose(both, ticket="x"))) == 2
    assert list(pictures(compose(both, ticket=""))) == shown(compose(both, ticket=""))
    assert len(pictures(compose(both, ticket=""))) == 1


@pytest.mark.parametrize(
    ("campaign", "ticket", "what"),
    [
        (PAGE, "", "is empty, and a code would say nothing"),
        (PAGE, "x" * 1_001, "more than 1,000 bytes"),
        (replace(PAGE, html=Template("p", '<img src="{{ ticket | qr(scale=99) }}">')), "x", "scale=99"),
        (replace(PAGE, text=Template("t", "{{ ticket | qr }}")), "x", "qr draws a picture"),
        (replace(PAGE, subject=Template("subject", "{{ ticket | qr }}")), "x", "qr draws a picture"),
    ],
)
def test_what_cannot_be_a_code_fails_the_row(campaign: Campaign, ticket: str, what: str) -> None:
    with pytest.raises(TemplateError) as caught:
        compose(campaign, ticket=ticket)
    assert what in str(caught.value)


def test_guide_example_draws() -> None:
    (example,) = re.findall(r"`(<img src=[^`]*qr[^`]*>)`", GUIDE)
    message = compose(replace(PAGE, html=Template("page.html", example)), ticket="42")
    assert list(pictures(message)) == shown(message)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    with pytest.raises(ConfigError) as caught:
        Composer(PAGE, run_id="r")
    assert "bulkmail[qr]" in caught.value.hint
