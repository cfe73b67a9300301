"""Rows that are tried by blocks leave behind what trying them one by one leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.checks import tried_messages as letter
from bulkmail.checks.tried_messages import MessageCheck
from bulkmail.message.compose.bodies import linked_fields
from bulkmail.message.compose.composer import Composer, TriedMessage
from bulkmail.message.template.field_names import printed_names
from bulkmail.message.template.rendering import referenced_names
from bulkmail.model.campaign import Campaign, Keys, Template, Unsubscribe
from bulkmail.model.recipient import Address, Place, Recipient, StoredRow
from bulkmail.model.relay import Secret

PLAIN = Campaign(
    "plain",
    Template("from", "Shop <news@shop.example>"),
    Template("subject", "{{ name }}, the tulips are here"),
    text=Template("text.txt", "Dear {{ name }},\n\nthey are red in {{ town }}.\n"),
    html=Template("page.html", '<p>Dear {{ name }},</p>\n<a href="{{ link }}">look</a>\n'),
)
CAMPAIGNS = {
    "plain": PLAIN,
    "text": replace(PLAIN, html=None),
    "unsubscribe": replace(PLAIN, unsubscribe=Unsubscribe(https="https://shop.example/u/{token}")),
    "condition": replace(PLAIN, text=Template("text.txt", "{% if town %}Dear {{ name }}{% endif %}\n")),
    "test": replace(PLAIN, subject=Template("subject", "[test] {{ name }}")),
    "long": replace(PLAIN, subject=Template("subject", "{{ name }}" * 30)),
    "email": replace(PLAIN, text=Template("text.txt", "{{ email }} {{ town }}")),
}
NAMES = [
    "Ann",
    "Bob",
    "Cy",
    "Zoë",
    "",
    "null",
    " Di",
    "  ",
    " null",
    "{{ name }}",
    "Test",
    "O'Brien",
    "MÃ¼ller",
    "a\nb",
    None,
    7,
]
LINKS = ["https://shop.example/1", "https://shop.example/2", "www.shop.example", "", "javascript:x"]
LOCALS = ["ann", "info", "noreply", "zoë", "Sales"]
rows = st.lists(
    st.tuples(
        st.sampled_from(LOCALS),
        st.sampled_from(["a.example", "b.example", "c.example"]),
        st.sampled_from(["", "Ann", "Zoë", "a\tb"]),
        st.one_of(
            st.fixed_dictionaries(
                {"name": st.sampled_from(NAMES[:4]), "town": st.just("Graz"), "link": st.just(LINKS[0])}
            ),
            st.fixed_dictionaries(
                {},
                optional={
                    "name": st.sampled_from(NAMES),
                    "town": st.sampled_from(["Graz", "", "lorem ipsum", "[First Name]", "&amp;"]),
                    "link": st.sampled_from(LINKS),
                },
            ),
        ),
    ),
    max_size=40,
)


def check_of(campaign: Campaign, total: int) -> MessageCheck:
    printed = frozenset(printed_names(campaign))
    names = frozenset(referenced_names(campaign)) | printed
    return MessageCheck(names, printed=printed, linked=linked_fields(campaign), total=total, hidden={3, 5})


@pytest.mark.slow
@pytest.mark.parametrize("campaign", CAMPAIGNS.values(), ids=CAMPAIGNS.keys())
@given(made=rows, total=st.sampled_from([10, 100, 1_000, 10_000]), block=st.sampled_from([2, 5, 50]))
def test_rows_tried_by_blocks_are_rows_tried_one_by_one(
    campaign: Campaign, made: list[tuple[str, str, str, dict[str, object]]], total: int, block: int
) -> None:
    assert_same(campaign, made, total=total, block=block)


@pytest.mark.parametrize("cell", [*NAMES, "lorem ipsum", "[First Name]", "&amp;", "\u3000", "\xa0null", "\u2028"])
def test_cell_that_says_something_is_seen_by_blocks(cell: object) -> None:
    plain: dict[str, object] = {"name": "Ann", "town": "Graz", "link": LINKS[0]}
    made = [("ann", "a.example", "", plain | odd) for odd in ({}, {"name": cell}, {}, {"town": cell}, {})]
    assert_same(PLAIN, made, total=10_000, block=50)


def assert_same(
    campaign: Campaign, made: Sequence[tuple[str, str, str, dict[str, object]]], *, total: int, block: int
) -> None:
    """Both ways, from rows of local part, domain, display name and fields."""
    composer = Composer(campaign, run_id="r", keys=Keys(unsubscribe=Secret("k" * 32)))
    stored: list[StoredRow] = []
    people: list[tuple[int, Recipient]] = []
    for number, (local, domain, name, fields) in enumerate(made, 1):
        person = Recipient(Address(local, domain), name, fields, Place("people.csv", number + 1))
        people.append((number, person))
        stored.append((number, person.address.wire, name, fields, "people.csv", number + 1))
    by_row, by_block = check_of(campaign, total), check_of(campaign, total)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(letter, "_BLOCK", block)
        assert by_block.bad_stored_rows(stored, composer) == by_row.bad_rows(people, composer)
    errors = {reason: failure.error for reason, failure in by_row.failures.items()}
    for reason, failure in by_block.failures.items():  # they are equal only if they are the same
        assert (type(failure.error), failure.error.args) == (type(errors[reason]), errors[reason].args)
        failure.error = errors[reason]
    assert by_block == by_row


def test_plain_rows_are_not_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    composer = Composer(PLAIN, run_id="r")
    tried: list[Recipient] = []

    def check(recipient: Recipient) -> TriedMessage:
        tried.append(recipient)
        return TriedMessage("x")

    monkeypatch.setattr(composer, "check", check)
    fields: dict[str, object] = {"name": "Ann", "town": "Graz", "link": LINKS[0]}
    stored: list[StoredRow] = [(n, f"user{n}@a.example", "Ann", fields, "people.csv", n + 1) for n in range(1, 1_001)]
    looked = check_of(PLAIN, 1_000)
    assert looked.bad_stored_rows(stored, composer) == []
    assert looked.rows == 1_000 and len(tried) == len(looked.samples) == letter.SAMPLE
