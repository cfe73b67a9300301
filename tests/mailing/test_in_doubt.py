"""Rows in doubt, held against where their messages were seen."""

from __future__ import annotations

from bulkmail.mailing.operator import rewriter_of, weigh
from bulkmail.outbox.entries import Doubtful
from bulkmail.reconcile.sighting import Sighting

ANN = Doubtful(1, 1, "Ann@example.com", "<1@run>", is_alone=True)
TO = Doubtful(2, 2, "to@example.com", "<2@run>", is_alone=False)
CC = Doubtful(3, 2, "cc@example.com", "<2@run>", is_alone=False)
NO_ONE = Doubtful(4, 4, "bob@example.com", "", is_alone=True)


def weighed(*sightings: Sighting) -> tuple[list[str], list[str], list[str]]:
    """Who was seen, who is unclear, who is missing."""
    found = weigh([ANN, TO, CC, NO_ONE], iter(sightings))
    assert found.looked_at == len(sightings)
    return (
        [f.doubtful.forward_path for f in found.seen],
        [f.doubtful.forward_path for f in found.unclear],
        [doubtful.forward_path for doubtful in found.missing],
    )


def test_message_to_one_is_settled_by_its_message_id_wherever_it_was_passed_on_to() -> None:
    seen, unclear, missing = weighed(Sighting("<1@run>", "x", frozenset({"elsewhere@example.org"})))
    assert (seen, unclear) == (["Ann@example.com"], [])
    assert missing == ["to@example.com", "cc@example.com", "bob@example.com"]


def test_copy_proves_nothing_for_the_others_who_got_one() -> None:
    seen, unclear, missing = weighed(Sighting("<2@run>", "x", frozenset({"cc@example.com"})))
    assert (seen, unclear) == (["cc@example.com"], ["to@example.com"])
    assert missing == ["Ann@example.com", "bob@example.com"]
    assert weighed(Sighting("<2@run>", "x"))[0] == []


def test_message_without_a_message_id_is_never_seen() -> None:
    assert weighed(Sighting("", "x"))[0] == []


def test_rewriter_is_known_by_its_host() -> None:
    assert rewriter_of("smtp://email-smtp.eu-west-1.amazonaws.com:587") == "Amazon SES"
    assert rewriter_of("smtp://mail.example.com") == ""
