"""The guide's example of dates, amounts and languages comes out as it says."""

from __future__ import annotations

import re
from pathlib import Path

from bulkmail.mailing.library import compose
from bulkmail.message.compose.composer import Composer
from bulkmail.model.recipient import Address, Place, Recipient

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")


def test_guide_example_of_a_locale_comes_out_as_it_says() -> None:
    section = GUIDE.partition("### Dates, amounts and languages\n")[2].partition("\n### ")[0]
    (settings, template, expected) = re.findall(r"^```(?:jinja)?\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    locale = re.search(r'^locale = "(\w+)"', settings, re.MULTILINE)
    assert locale
    campaign = compose(from_="shop@shop.example", subject="News", text=template, locale=locale[1])
    fields = {"due": "2026-12-24", "amount": "1,234.50", "vat": "19%", "days_left": "3"}
    recipient = Recipient(Address.parse("ann@example.com"), "", fields, Place("list.csv", 2))
    found = Composer(campaign, run_id="r").render(recipient).text
    assert found is not None
    assert found.replace("\u00a0", " ") == expected
