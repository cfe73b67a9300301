"""What an event says of itself."""

from __future__ import annotations

from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, Proof
from bulkmail.model.recipient import Address


def event(*, forward_path: str = "", address: str = "") -> FeedbackEvent:
    who = Address.parse(address) if address else None
    return FeedbackEvent("x", FeedbackKind.HARD, 0.0, Proof.MESSAGE_ID, address=who, forward_path=forward_path)


def test_event_acts_on_the_forward_path_rather_than_the_mailbox_behind_it() -> None:
    found = event(forward_path="Ann@example.org", address="ann.other@example.net").mailbox
    assert found is not None and found.key == "ann@example.org"


def test_event_acts_on_the_address_when_no_forward_path_is_known() -> None:
    found = event(address="ann@example.net").mailbox
    assert found is not None and found.key == "ann@example.net"
    assert event().mailbox is None


def test_proof_is_none_where_anyone_may_have_written_it() -> None:
    assert {proof for proof in Proof if not proof.is_proved} == {Proof.ADDRESS, Proof.NONE}


def test_kind_of_a_blocked_message_never_suppresses() -> None:
    assert FeedbackKind.BLOCKED.is_bounce and not FeedbackKind.BLOCKED.may_suppress
    assert {kind for kind in FeedbackKind if kind.may_suppress} == {
        FeedbackKind.HARD,
        FeedbackKind.SOFT,
        FeedbackKind.SPAM_COMPLAINT,
        FeedbackKind.UNSUBSCRIBE,
    }
