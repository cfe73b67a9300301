"""Who or what a refusal is about: by wordings of many servers, and by a grammar of subjects and acts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.outcome import Outcome, Reason, Reply, Scope, Stage, make_reply
from bulkmail.model.shaper import ThrottleDecision
from bulkmail.model.verdict import judge
from bulkmail.model.wording import Subject, plain, read
from bulkmail.settings.presets import known_feedback
from tests.cases import every

FOLDER = Path(__file__).parent / "replies"


def every_reply(name: str) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """The lines of a file: stage, reply, meaning."""
    lines = [line.split("\t") for line in (FOLDER / name).read_text("utf-8").splitlines()]
    return every((f"{name}:{number}", tuple(line)) for number, line in enumerate(lines, 1))


def reply_of(stage: str, line: str) -> Reply:
    return make_reply(Stage(stage), int(line[:3]), [line[4:]])


def meaning_of(decision: ThrottleDecision) -> str:
    """What the verdict asks for, in the words of the files."""
    verdict = decision.verdict
    if verdict.outcome is Outcome.REJECTED:
        return "rejected"
    if verdict.pause:
        return "quota"
    if verdict.reason is Reason.TOO_MANY_CONNECTIONS:
        return "connections"
    if decision.is_slower:
        return "throttle"
    if verdict.stops or verdict.strikes:
        return "stop"
    if verdict.scope is Scope.RELAY:
        return "relay"
    return "session" if verdict.scope is Scope.SESSION else "deferred"


@pytest.mark.slow
@every_reply("about_us.tsv")
def test_reply_about_us_rejects_no_recipient_and_means_what_it_says(stage: str, line: str, meaning: str) -> None:
    reply = reply_of(stage, line)
    assert meaning_of(known_feedback().decide(reply)) == meaning
    assert judge(reply).outcome is Outcome.DEFERRED  # without the table of providers, too


@every_reply("about_the_recipient.tsv")
def test_reply_about_the_recipient_stays_with_that_recipient(stage: str, line: str, meaning: str) -> None:
    decision = known_feedback().decide(reply_of(stage, line))
    assert decision.verdict.scope is Scope.RECIPIENT
    assert meaning_of(decision) == meaning


@every_reply("about_the_message.tsv")
def test_reply_about_the_content_stays_with_the_message(stage: str, line: str, meaning: str) -> None:
    decision = known_feedback().decide(reply_of(stage, line))
    assert decision.verdict.scope in (Scope.MESSAGE, Scope.RECIPIENT)
    assert meaning_of(decision) == meaning


# --- a grammar: anybody may word it so -----------------------------------------------------------------------------

OURS = st.sampled_from(
    [
        *("your account", "your IP address", "the sender address", "your domain", "client host", "this SMTP account"),
        *("the From address", "sender", "your server", "sending domain", "the envelope sender", "your mail server"),
    ]
)
DENIALS = st.sampled_from(
    [
        *("is not allowed", "has been blocked", "was rejected", "is not verified", "is banned", "has been suspended"),
        *("is denied", "has been disabled", "is not authorized", "is not permitted to send", "was refused"),
    ]
)
BEFORE = st.sampled_from(
    ["", "Access denied: ", "Message rejected, ", "Sorry, ", "Error: ", "SMTP; ", "Policy violation - "]
)
AFTER = st.sampled_from(["", ".", "; contact support", " (ref 1f3a)", ", see https://help.example.com/smtp"])
AMOUNTS = st.sampled_from(["messages", "emails", "recipients", "mails"])
SPANS = {"per second": 0.0, "per minute": 0.0, "per hour": 3600.0, "per day": 86400.0, "in 24 hours": 86400.0}
LIMITS = st.sampled_from(
    [
        "limit of 100 {} {} exceeded",
        "you sent too many {} {}",
        "maximum number of {} {} reached",
        "{} {}: limit reached",
    ]
)
THEIRS = st.sampled_from(
    [
        *("the recipient has blocked this sender", "this user does not accept mail from your domain"),
        *("recipient address rejected: sender not allowed", "the recipient's mailbox is over its limit"),
        *("you are not allowed to send to this group", "sender is not in the recipient's list of allowed senders"),
        *("the user you are trying to contact is receiving mail too quickly", "mailbox full, quota exceeded"),
    ]
)
ENHANCED = st.sampled_from(["", "7.1", "7.0", "0.0", "6.0"])
STAGES = st.sampled_from([Stage.RCPT, Stage.DATA, Stage.END])


def made(stage: Stage, code: int, enhanced: str, *words: str) -> Reply:
    return Reply(stage, code, f"{code // 100}.{enhanced}" if enhanced else "", "".join(words))


@given(STAGES, st.sampled_from([450, 451, 550, 554]), ENHANCED, BEFORE, OURS, DENIALS, AFTER)
def test_refusal_of_us_rejects_no_recipient(
    stage: Stage, code: int, enhanced: str, before: str, subject: str, denial: str, after: str
) -> None:
    verdict = judge(made(stage, code, enhanced, before, subject, " ", denial, after))
    assert verdict.outcome is Outcome.DEFERRED and not verdict.counts
    assert (verdict.strikes, verdict.probes) == (code >= 500, code < 500)


@given(
    STAGES,
    st.sampled_from([450, 452, 550, 554]),
    ENHANCED,
    BEFORE,
    LIMITS,
    AMOUNTS,
    st.sampled_from(list(SPANS)),
    AFTER,
)
def test_limit_on_sending_slows_down_or_pauses_as_long_as_it_holds(
    stage: Stage, code: int, enhanced: str, before: str, limit: str, amount: str, span: str, after: str
) -> None:
    decision = known_feedback().decide(made(stage, code, enhanced, before, limit.format(amount, span), after))
    assert decision.verdict.outcome is Outcome.DEFERRED and not decision.verdict.counts
    assert decision.pause == SPANS[span]
    assert decision.is_slower == (not SPANS[span])


@given(st.sampled_from([450, 451, 550, 554]), ENHANCED, BEFORE, THEIRS, AFTER)
def test_refusal_that_is_the_recipients_stays_the_recipients(
    code: int, enhanced: str, before: str, theirs: str, after: str
) -> None:
    verdict = judge(made(Stage.RCPT, code, enhanced, before, theirs, after))
    assert verdict.scope is Scope.RECIPIENT and verdict.counts
    assert not (verdict.strikes or verdict.probes or verdict.stops or verdict.pause)


@given(st.builds(Reply, st.sampled_from(Stage), st.integers(400, 599), st.just(""), st.text(max_size=500)))
def test_wording_of_any_text_has_one_meaning(reply: Reply) -> None:
    assert read(reply) == read(reply)
    assert plain(plain(reply.text)) == plain(reply.text) or "@" in reply.text or not reply.text.isascii()


@pytest.mark.parametrize("unit", ["a" * 500, "sender " * 70, "1.1.1." * 80, "<a@" * 160, "not " * 120, "your ip " * 60])
def test_wording_of_a_long_text_is_found_at_once(unit: str) -> None:
    assert read(Reply(Stage.RCPT, 550, "", unit[:500])).subject in Subject
