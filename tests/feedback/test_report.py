"""Mails that come back, read: what they are, whom they are about and what they mean."""

from __future__ import annotations

import json

import pytest

from bulkmail.feedback.classify import BounceReason, BounceRule, by_words, classify, provider_rules, rules
from bulkmail.feedback.feedback_report import FeedbackReport, read_report
from bulkmail.feedback.notice import RecipientNotice
from bulkmail.model.feedback_event import MOST_WORDS, FeedbackKind
from bulkmail.settings.presets import known_feedback
from tests.feedback import mails
from tests.feedback.mails import ANN, OUR_ID


def reported(report: FeedbackReport) -> list[tuple[str, FeedbackKind, str]]:
    return [(each.notice.address, each.finding.kind, each.finding.reason) for each in report.recipients]


def kind_of(words: str, *, status: str = "5.0.0", action: str = "failed") -> FeedbackKind:
    return classify(RecipientNotice(ANN, action=action, status=status, diagnostic=words)).kind


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "example"),
    [(rule, example) for rule in rules() for example in rule.examples],
    ids=lambda each: str(each)[:40],
)
def test_table_fits_its_own_examples(rule: BounceRule, example: str) -> None:
    found = classify(RecipientNotice(ANN, action="failed", diagnostic=example))
    assert (found.kind, found.reason) == rule.verdict


def test_table_has_an_example_for_each_entry_and_only_hard_soft_and_blocked() -> None:
    assert len(rules()) > 20
    assert all(rule.examples for rule in rules())
    assert {rule.verdict.kind for rule in rules()} == {FeedbackKind.HARD, FeedbackKind.SOFT, FeedbackKind.BLOCKED}


@pytest.mark.parametrize(
    "words",
    ["554 HL:IPB smtp12", "555 helohost error.", "550 black ip.", "550 Suspected bounce attacks"],
)
def test_refusal_in_a_providers_own_words_is_judged_by_the_table_of_replies(words: str) -> None:
    """It is about our host, so it never counts against the recipient."""
    found = classify(RecipientNotice(ANN, action="failed", diagnostic=words))
    assert (found.kind, found.reason) == (FeedbackKind.BLOCKED, BounceReason.OUR_HOST)


def test_table_of_replies_is_the_one_of_our_own_sessions() -> None:
    assert provider_rules() == known_feedback().rules


# --- standard reports -------------------------------------------------------------------------------------------------


def test_report_names_recipient_kind_and_words() -> None:
    report = read_report(mails.dsn())
    assert reported(report) == [(ANN, FeedbackKind.HARD, "unknown-user")]
    finding = report.recipients[0].finding
    assert (finding.code, finding.enhanced) == (550, "5.1.1")
    assert "User unknown" in finding.words
    assert report.message_ids == (OUR_ID,)
    assert report.at == 1793700005.0


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_report_is_read_with_any_line_ends(end: str) -> None:
    report = read_report(mails.dsn().replace(b"\n", end.encode()))
    assert reported(report) == [(ANN, FeedbackKind.HARD, "unknown-user")]
    assert report.message_ids == (OUR_ID,)


def test_report_prefers_the_address_that_was_written_to() -> None:
    report = read_report(mails.dsn(recipient="ann.private@example.net", original=ANN))
    assert report.recipients[0].notice.address == ANN
    assert report.recipients[0].notice.other == "ann.private@example.net"


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("failed", FeedbackKind.HARD),
        ("error", FeedbackKind.HARD),  # what OpenSMTPD wrote
        ("delayed", FeedbackKind.DELAYED),
        ("delivered", FeedbackKind.DELIVERED),
        ("relayed", FeedbackKind.DELIVERED),
        ("expanded", FeedbackKind.DELIVERED),
    ],
)
def test_report_follows_the_action(action: str, kind: FeedbackKind) -> None:
    assert read_report(mails.dsn(action=action)).kind is kind


def test_report_without_a_verdict_in_words_goes_by_its_digits() -> None:
    assert kind_of("550 something odd", status="5.1.1") is FeedbackKind.HARD
    assert kind_of("550 something odd", status="5.2.2") is FeedbackKind.SOFT
    assert kind_of("550 something odd", status="5.7.1") is FeedbackKind.BLOCKED
    assert kind_of("450 something odd", status="4.0.0") is FeedbackKind.SOFT


def test_report_is_not_hard_because_its_digits_begin_with_five() -> None:
    assert kind_of("552 5.2.2 mailbox full", status="5.2.2") is FeedbackKind.SOFT
    assert kind_of("554 5.7.1 Client host blocked using a block list", status="5.7.1") is FeedbackKind.BLOCKED
    assert kind_of("550 your sending address does not exist", status="5.1.8") is FeedbackKind.BLOCKED


def test_report_is_hard_by_its_words_whatever_the_digits() -> None:
    assert (
        kind_of("450 4.1.1 <ann@example.org>: user unknown in local recipient table", status="4.1.1")
        is FeedbackKind.HARD
    )


def test_refusal_before_a_recipient_was_named_is_not_the_recipients() -> None:
    words = "host mx.example.org said: 550 5.1.2 no such domain (in reply to MAIL FROM command)"
    assert kind_of(words) is FeedbackKind.BLOCKED


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("host mx.example.org said: 550 Unknown user ann (in reply to end of DATA command)", FeedbackKind.SOFT),
        ("host mx.example.org said: 550 5.1.1 unknown user (in reply to end of DATA command)", FeedbackKind.HARD),
        ("host mx.example.org said: 550 Unknown user ann (in reply to RCPT TO command)", FeedbackKind.HARD),
    ],
)
def test_unknown_user_after_the_content_needs_the_servers_own_digits(words: str, kind: FeedbackKind) -> None:
    assert kind_of(words, status="5.0.0") is kind


def test_report_about_two_recipients_says_of_each_what_is_said_of_it() -> None:
    first = mails.dsn().decode()
    other = (
        "Final-Recipient: rfc822; bob@example.org\nAction: failed\nStatus: 5.2.2\nDiagnostic-Code: smtp; 552 5.2.2 full"
    )
    report = read_report(
        first.replace("\n\n--b1\nContent-Type: text/rfc822", f"\n\n{other}\n\n--b1\nContent-Type: text/rfc822").encode()
    )
    assert reported(report) == [
        (ANN, FeedbackKind.HARD, "unknown-user"),
        ("bob@example.org", FeedbackKind.SOFT, "mailbox-full"),
    ]


# --- what single programs write ---------------------------------------------------------------------------------------


def test_bounce_of_exim_is_no_auto_reply_although_it_says_so() -> None:
    report = read_report(mails.exim())
    assert reported(report) == [(ANN, FeedbackKind.HARD, "unknown-user")]
    assert report.message_ids == (OUR_ID,)


def test_bounce_of_exim_names_only_those_that_failed() -> None:
    report = read_report(mails.exim(recipients=(ANN, "bob@example.org")))
    assert [each.notice.address for each in report.recipients] == [ANN, "bob@example.org"]


def test_bounce_of_qmail_is_read_from_its_words() -> None:
    report = read_report(mails.qmail())
    assert reported(report) == [(ANN, FeedbackKind.SOFT, "mailbox-full")]


def test_bounce_in_words_never_names_our_own_addresses() -> None:
    mail = mails.qmail(
        words="Remote host said: 550 mail from <news@shop.example> refused, ask <postmaster@example.org>"
    )
    assert [each.notice.address for each in read_report(mail).recipients] == [ANN]


def test_notification_of_ses_that_came_as_mail_is_read() -> None:
    told_by_ses = {
        "notificationType": "Bounce",
        "bounce": {
            "bounceType": "Permanent",
            "bouncedRecipients": [
                {
                    "emailAddress": ANN,
                    "action": "failed",
                    "status": "5.1.1",
                    "diagnosticCode": "smtp; 550 5.1.1 user unknown",
                }
            ],
        },
        "mail": {
            "messageId": "1",
            "headers": [{"name": "X-Bulkmail-Id", "value": "abcdefghijklm"}, {"name": "Message-ID", "value": OUR_ID}],
        },
    }
    head = "From: no-reply@sns.example\nSubject: AWS Notification Message\nTo: a@shop.example"
    mail = f"{head}\n\n{json.dumps(told_by_ses)}\n\n--\nStop"
    report = read_report(mail.encode())
    assert reported(report) == [(ANN, FeedbackKind.HARD, "unknown-user")]
    assert report.our_ids == ("abcdefghijklm",)
    assert report.message_ids == (OUR_ID,)


# --- complaints, auto-replies, requests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feedback_type", "kind"),
    [
        ("abuse", FeedbackKind.SPAM_COMPLAINT),
        ("fraud", FeedbackKind.SPAM_COMPLAINT),
        ("opt-out", FeedbackKind.UNSUBSCRIBE),
        ("auth-failure", FeedbackKind.UNCLEAR),
        ("not-spam", FeedbackKind.UNCLEAR),
    ],
)
def test_complaint_goes_by_its_type(feedback_type: str, kind: FeedbackKind) -> None:
    report = read_report(mails.arf(feedback_type=feedback_type))
    assert [(each.notice.address, each.finding.kind) for each in report.recipients] == [(ANN, kind)]
    assert report.message_ids == (OUR_ID,)


def test_complaint_without_a_recipient_still_quotes_our_message() -> None:
    report = read_report(mails.arf(fields="", quoted=mails.QUOTED.replace(f"To: Ann <{ANN}>\n", "")))
    assert report.kind is FeedbackKind.SPAM_COMPLAINT
    assert report.message_ids == (OUR_ID,)


def test_complaint_of_microsoft_is_known_although_it_says_nothing() -> None:
    report = read_report(mails.jmrp())
    assert reported(report) == [(ANN, FeedbackKind.SPAM_COMPLAINT, "abuse")]


@pytest.mark.parametrize(
    "mail",
    [
        mails.holiday(),
        mails.holiday(headers=""),
        mails.holiday(subject="Re: Autumn"),
        mails.holiday(subject="Automatic reply: Autumn", headers="X-Auto-Response-Suppress: All\n"),
    ],
    ids=["both", "subject", "field", "outlook"],
)
def test_holiday_reply_has_no_recipients_to_act_on(mail: bytes) -> None:
    report = read_report(mail)
    assert report.kind is FeedbackKind.AUTO_REPLY
    assert not report.recipients
    assert report.replies_to == (OUR_ID,)


def test_request_in_words_is_an_unsubscribe_without_a_recipient() -> None:
    report = read_report(mails.request())
    assert report.kind is FeedbackKind.UNSUBSCRIBE
    assert not report.recipients


def test_ordinary_mail_is_unclear_and_about_no_one() -> None:
    report = read_report(mails.request(subject="A question", text="Is 550 5.1.1 user unknown at bob@example.org bad?"))
    assert report.kind is FeedbackKind.UNCLEAR
    assert not report.recipients


# --- hostile mails ----------------------------------------------------------------------------------------------------


def test_words_of_a_report_are_printable_and_short() -> None:
    report = read_report(mails.dsn(diagnostic="smtp; 550 \x1b[31mred\x07 " + "user unknown " * 100))
    words = report.recipients[0].finding.words
    assert words.isprintable()
    assert len(words) <= MOST_WORDS


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n",
        b"\0" * 1_000,
        bytes(range(256)) * 100,
        b"Content-Type: multipart/mixed; boundary=a\n\n"
        + b"--a\nContent-Type: multipart/mixed; boundary=a\n\n" * 3_000,
        b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 30_000,
        b"Subject: " + b"=?utf-8?b?" * 20_000 + b"\n\nx",
        b"From: MAILER-DAEMON\nSubject: failure notice\n\n" + b"a@" * 200_000,
        b"From: MAILER-DAEMON\nSubject: failure notice\n\n" + b"<a@example.org>:\n" * 20_000,
        b"From: MAILER-DAEMON\nSubject: failure notice\n\n{" + b'"mail":{' * 50_000,
        b"From: MAILER-DAEMON\nContent-Type: text/html\n\n" + b"<style>" * 40_000,
        b"From: MAILER-DAEMON\nContent-Type: text/plain; charset=idna\n\n" + b"x" * 100_000,
        b"A:\n" * 100_000,
        b"Received: from a for a@b.example\n" * 10_000 + b"\n",
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_hostile_mail_is_read_in_bounded_time(raw: bytes) -> None:
    report = read_report(raw)
    assert len(report.recipients) <= 100
    assert len(report.written_to) <= 50


def test_detector_that_stumbles_over_a_hostile_mail_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    read_report(b"From: \nSubject: failure notice\n\nnothing that names anybody\n")
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_words_are_found_by_a_table_that_no_text_makes_slow() -> None:
    assert by_words("user " * 50_000) is None
    assert by_words("a" * 400_000) is None
