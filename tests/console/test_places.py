"""Where a finding leads: the field of the form that holds the place it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkmail.console.document import Document, read_document
from bulkmail.console.places import field_of

TOML = """\
relay = "sandbox:"
recipients = "people.csv"

[message]
from = "shop@example.com"
subject = "Hi"
text = "message.txt"
html = '''
<p>one</p>
<p>two</p>
'''
list_id = "x"

[sending]
rate = "5/s"

[[bounces]]
maildir = "m"
"""


@pytest.fixture
def document(tmp_path: Path) -> Document:
    (tmp_path / "campaign.toml").write_text(TOML)
    (tmp_path / "message.txt").write_text("Dear\n")
    return read_document(tmp_path / "campaign.toml", lambda path: True)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("message.txt:3: 'nmae' is undefined", "/c/x?line=3#body-text"),
        ("mail/spring/message.txt:3", "/c/x?line=3#body-text"),
        ("campaign.toml:1", "/c/x#relay"),
        ("campaign.toml:2", "/c/x#list"),
        ("spring/campaign.toml:6: subject", "/c/x#subject"),
        ("campaign.toml:10: a link", "/c/x?line=2#body-html"),
        ("campaign.toml:12", "/c/x/settings?line=12#settings"),
        ("campaign.toml:15", "/c/x#rate"),
        ("campaign.toml:18", "/c/x/settings?line=18#settings"),
        ("people.csv:7", "/c/x#list"),
        ("other.txt:3", None),
        ("at 12:30 message.txt said no", None),
        ("", None),
    ],
)
def test_place_leads_to_its_field(document: Document, text: str, address: str | None) -> None:
    field = field_of(document, "", text)
    assert (field and field.address("x")) == address


def test_first_known_place_counts(document: Document) -> None:
    field = field_of(document, "broken/people.csv", "message.txt:1: 'nmae' is undefined in 3 rows: lines 2, 3")
    assert field is not None
    assert (field.id, field.words) == ("body-text", "message.txt, line 1")
