"""Which row a mail is about, how far that is proved, and that forged mails prove nothing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from bulkmail.feedback.feedback_report import read_report
from bulkmail.feedback.matching import ADDRESS_COUNTS, Arrived, Matcher
from bulkmail.message.unsubscribe import make_token, verify_unsubscribe
from bulkmail.message.verp import BounceTokens
from bulkmail.model.campaign import BounceKey
from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, KnownRun, Proof
from bulkmail.model.recipient import Address
from bulkmail.model.relay import Secret
from bulkmail.outbox.lookup import FoundDelivery
from tests.feedback import mails
from tests.feedback.mails import ANN, OUR_ID

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
SENT_AT = 1793700000.0
RUN = KnownRun(3, "run-3", "autumn", "news.shop.example", "/runs/autumn.outbox", SENT_AT - 60)
OLDER = KnownRun(2, "run-2", "summer", "news.shop.example", "/runs/summer.outbox", SENT_AT - 30 * 86_400)


class Run:
    """The deliveries of a run, and what was asked for."""

    def __init__(self, *deliveries: FoundDelivery) -> None:
        self.deliveries = deliveries
        self.looks = 0

    def find(
        self,
        *,
        numbers: Collection[int] = (),
        rows: Collection[int] = (),
        message_ids: Collection[str] = (),
        paths: Collection[str] = (),
    ) -> list[FoundDelivery]:
        self.looks += 1
        return [
            each
            for each in self.deliveries
            if each.id in numbers
            or each.row in rows
            or each.message_id in message_ids
            or each.forward_path.lower() in paths
        ]


def delivery(number: int = 5, row: int = 4, path: str = ANN, message_id: str = OUR_ID) -> FoundDelivery:
    return FoundDelivery(number, row, path, message_id, True, SENT_AT)


def arrived(mail: bytes) -> Arrived:
    return Arrived(f"digest-{hash(mail)}", read_report(mail), mail, "mbox bounces", SENT_AT + 3_600)


def match(mail: bytes, *deliveries: FoundDelivery, older: Run | None = None) -> list[FeedbackEvent]:
    runs = {RUN.number: Run(*(deliveries or (delivery(),))), OLDER.number: older}

    def verify(token: str) -> tuple[Address, str] | None:
        found = verify_unsubscribe(token, [KEY])
        return (found, "") if found else None

    matcher = Matcher([OLDER, RUN], KEY, look_in=lambda run: runs[run.number], verify_unsubscribe=verify)
    return matcher.match([arrived(mail)])


def token(*, number: int | None = None, row: int | None = None, run: int = 3, key: bytes = KEY) -> str:
    tokens = BounceTokens(BounceKey(run, Secret(key.hex())))
    return tokens.of_delivery(number) if number is not None else tokens.of_row(row or 0)


NO_QUOTE = "Subject: x\n"


def test_report_is_matched_by_the_token_that_it_was_written_to() -> None:
    mail = mails.dsn(headers=f"Delivered-To: BOUNCES+{token(number=5).upper()}@shop.example\n", quoted=NO_QUOTE)
    (event,) = match(mail)
    assert (event.proof, event.kind) == (Proof.TOKEN, FeedbackKind.HARD)
    assert (event.run_id, event.campaign, event.list_id) == ("run-3", "autumn", "news.shop.example")
    assert (event.row, event.delivery, event.forward_path) == (4, 5, ANN)
    assert (event.code, event.enhanced) == (550, "5.1.1")
    assert event.report == mail


def test_report_is_matched_by_our_header() -> None:
    mail = mails.dsn(quoted=f"X-Bulkmail-Id: {token(row=4)}\nMessage-ID: <other@relay.example>\nTo: {ANN}\n")
    (event,) = match(mail)
    assert (event.proof, event.row, event.delivery) == (Proof.TOKEN, 4, 5)


def test_report_is_matched_by_the_message_id_that_it_quotes() -> None:
    (event,) = match(mails.dsn())
    assert (event.proof, event.row, event.kind) == (Proof.MESSAGE_ID, 4, FeedbackKind.HARD)


def test_report_is_matched_by_its_envelope_id() -> None:
    envelope_id = OUR_ID.strip("<>").replace("a", "+61", 1)
    (event,) = match(mails.dsn(quoted=NO_QUOTE, envelope_id=envelope_id))
    assert (event.proof, event.row) == (Proof.ENVELOPE_ID, 4)


def test_report_about_a_forwarded_message_acts_on_the_address_that_we_wrote_to() -> None:
    (event,) = match(mails.dsn(recipient="ann.private@example.net"))
    assert event.forward_path == ANN
    assert event.address is not None and event.address.wire == "ann.private@example.net"
    assert event.mailbox is not None and event.mailbox.wire == ANN


def test_report_about_one_of_several_copies_counts_for_that_one_alone() -> None:
    boss = delivery(6, 4, "boss@example.org")
    (event,) = match(mails.dsn(recipient="Boss@example.org"), delivery(), boss)
    assert (event.delivery, event.forward_path) == (6, "boss@example.org")


def test_report_that_names_none_of_several_copies_acts_on_no_one() -> None:
    (event,) = match(mails.dsn(recipient="x@example.net"), delivery(), delivery(6, 4, "boss@example.org"))
    assert (event.kind, event.row, event.mailbox) == (FeedbackKind.UNCLEAR, 4, None)


def test_report_with_a_delivery_token_and_other_recipients_is_unclear() -> None:
    other = (
        "Final-Recipient: rfc822; y@example.net\nAction: failed\nStatus: 5.2.2\nDiagnostic-Code: smtp; 552 5.2.2 full"
    )
    mail = mails.dsn(recipient="x@example.net", headers=f"Delivered-To: b+{token(number=5)}@shop.example\n")
    mail = mail.replace(
        b"\n\n--b1\nContent-Type: text/rfc822", f"\n\n{other}\n\n--b1\nContent-Type: text/rfc822".encode()
    )
    (event,) = match(mail)
    assert (event.kind, event.delivery) == (FeedbackKind.UNCLEAR, 5)


def test_complaint_is_matched_although_it_names_no_recipient() -> None:
    (event,) = match(mails.arf(fields="", quoted=mails.QUOTED.replace(f"To: Ann <{ANN}>\n", "")))
    assert (event.kind, event.forward_path, event.proof) == (FeedbackKind.SPAM_COMPLAINT, ANN, Proof.MESSAGE_ID)


def test_holiday_reply_is_noted_for_its_row() -> None:
    (event,) = match(mails.holiday())
    assert (event.kind, event.row, event.proof) == (FeedbackKind.AUTO_REPLY, 4, Proof.MESSAGE_ID)


def test_newer_run_is_not_asked_about_a_message_of_an_older_one_that_has_it() -> None:
    older = Run(delivery(9, 8))
    (event,) = match(mails.dsn(), delivery(5, 4, message_id="<another@shop.example>"), older=older)
    assert (event.run_id, event.row, event.proof) == ("run-2", 8, Proof.MESSAGE_ID)


def test_each_outbox_is_looked_into_once_for_any_number_of_mails() -> None:
    run = Run(
        *(delivery(number, number, f"p{number}@example.org", f"<m{number}@shop.example>") for number in range(50))
    )
    found = [
        arrived(mails.dsn(recipient=f"p{n}@example.org", quoted=f"Message-ID: <m{n}@shop.example>\n"))
        for n in range(50)
    ]
    events = Matcher([RUN], KEY, look_in=lambda known: run).match(found)
    assert [event.row for event in events] == list(range(50))
    assert run.looks == 1


# --- proof ------------------------------------------------------------------------------------------------------------


def test_report_that_only_names_an_address_proves_nothing() -> None:
    (event,) = match(mails.dsn(quoted=NO_QUOTE))
    assert (event.proof, event.run_id, event.forward_path) == (Proof.ADDRESS, "run-3", ANN)
    assert not event.proof.is_proved


@pytest.mark.parametrize("late", [ADDRESS_COUNTS + 1, -2 * 86_400])
def test_report_that_only_names_an_address_is_about_no_message_of_another_time(late: float) -> None:
    sent = replace(arrived(mails.dsn(quoted=NO_QUOTE)), read_at=SENT_AT + late)
    sent = replace(sent, report=replace(sent.report, at=SENT_AT + late))
    (event,) = Matcher([RUN], KEY, look_in=lambda run: Run(delivery())).match([sent])
    assert (event.proof, event.run_id) == (Proof.NONE, "")


def test_report_that_proves_nothing_is_of_the_time_at_which_it_was_read() -> None:
    (event,) = match(mails.dsn(quoted=NO_QUOTE).replace(b"Nov 2026", b"Nov 2016"))
    assert (event.proof, event.at) == (Proof.ADDRESS, SENT_AT + 3_600)
    (event,) = match(mails.dsn())
    assert (event.proof, event.at) == (Proof.MESSAGE_ID, SENT_AT + 5)


def test_report_whose_clock_is_wrong_is_matched_all_the_same() -> None:
    (event,) = match(mails.dsn().replace(b"Nov 2026", b"Nov 2012"))
    assert (event.proof, event.row) == (Proof.MESSAGE_ID, 4)


def test_report_about_an_address_that_got_nothing_is_matched_to_nothing() -> None:
    (event,) = match(mails.dsn(recipient="bob@example.org", quoted=NO_QUOTE))
    assert (event.proof, event.run_id, event.row) == (Proof.NONE, "", None)


def test_forged_tokens_and_ids_prove_nothing() -> None:
    forged = token(number=5, key=OTHER_KEY)
    mail = mails.dsn(
        headers=f"Delivered-To: bounces+{forged}@shop.example\n",
        quoted=f"X-Bulkmail-Id: {forged}\nMessage-ID: <guessed@shop.example>\n",
    )
    assert [event.proof for event in match(mail)] == [Proof.ADDRESS]


def test_token_of_an_unknown_run_or_delivery_proves_nothing() -> None:
    for text in (token(number=5, run=99), token(number=500), token(row=500)):
        mail = mails.dsn(headers=f"Delivered-To: b+{text}@shop.example\n", quoted=NO_QUOTE)
        assert [event.proof for event in match(mail)] == [Proof.ADDRESS]


def test_run_whose_outbox_is_gone_is_passed_over() -> None:
    (event,) = Matcher([RUN], KEY, look_in=lambda run: None).match([arrived(mails.dsn())])
    assert event.proof is Proof.NONE


# --- unsubscribing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["subject", "address"])
def test_request_with_a_signed_token_takes_its_address_off_the_list(place: str) -> None:
    signed = make_token(Address.parse(ANN), KEY)
    mail = (
        mails.request(subject=signed) if place == "subject" else mails.request(to=f"unsubscribe+{signed}@shop.example")
    )
    (event,) = match(mail)
    assert (event.kind, event.proof) == (FeedbackKind.UNSUBSCRIBE, Proof.TOKEN)
    assert event.mailbox is not None and event.mailbox.key == ANN


def test_request_in_words_is_only_noted() -> None:
    (event,) = match(mails.request())
    assert (event.kind, event.proof, event.mailbox) == (FeedbackKind.UNSUBSCRIBE, Proof.NONE, None)


def test_request_with_a_token_of_another_key_is_only_noted() -> None:
    (event,) = match(mails.request(subject=f"unsubscribe {make_token(Address.parse(ANN), OTHER_KEY)}"))
    assert event.proof is Proof.NONE


# --- the same again ---------------------------------------------------------------------------------------------------


def test_event_has_the_same_id_each_time_it_is_read() -> None:
    assert match(mails.dsn()) == match(mails.dsn())
    assert match(mails.dsn())[0].source_id != match(mails.dsn(recipient="bob@example.org"))[0].source_id


def test_event_that_was_not_matched_at_first_is_another_one_when_it_is() -> None:
    sent = arrived(mails.dsn())
    (before,) = Matcher([], KEY, look_in=lambda run: None).match([sent])
    (after,) = Matcher([RUN], KEY, look_in=lambda run: Run(delivery())).match([sent])
    assert before.source_id != after.source_id
