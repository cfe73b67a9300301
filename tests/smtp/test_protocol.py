"""Transcripts: `C` is what we write, `S` what the server says; one `S` line is one piece off the wire."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.outcome import Breakage, Fault, Outcome, Reply, Stage
from bulkmail.model.recipient import has_control
from bulkmail.model.verdict import judge
from bulkmail.smtp.peer_policy import CloseReason, PeerPolicy, Terms
from bulkmail.smtp.protocol import Protocol
from bulkmail.smtp.replies import Capabilities
from bulkmail.smtp.transaction import Step, Transfer
from tests.examples import many

MESSAGE = b"Subject: hello\r\n\r\nDear Ann\r\n"

MAIL = "C MAIL FROM:<news@example.org>"
RCPT = "C RCPT TO:<ann@example.com>"
MESSAGE_AND_END = "C Subject: hello\nC \nC Dear Ann\nC ."
ACCEPTED = f"{MAIL}\nS 250 ok\n{RCPT}\nS 250 ok\nC DATA\nS 354 go on\n{MESSAGE_AND_END}\nS 250 2.0.0 queued\n"


def message(content: bytes = MESSAGE) -> Message:
    return Message(Envelope("news@example.org", "ann@example.com"), "<1@example.org>", (content,))


class Talk:
    """Transactions with someone who grants every mark at once, unless told otherwise."""

    def __init__(self, *, grants_marks: bool = True) -> None:
        self.protocol = Protocol(Terms(Capabilities()), PeerPolicy(), peer="mail.example.com")
        self.transfers: list[Transfer] = []
        self.waiting: deque[Transfer] = deque()
        self.protocol.more = self._more
        self.grants_marks = grants_marks
        self.marks_wanted = 0

    def send(self) -> Transfer:
        transfer = Transfer(message())
        self.transfers.append(transfer)
        self.waiting.append(transfer)
        return transfer

    def _more(self) -> Transfer | None:
        return self.waiting.popleft() if self.waiting else None

    def written(self) -> bytes:
        """Everything that may be written now."""
        output = b""
        while (piece := self.protocol.next_output()) is not None:
            output += piece
            if (wanting := self.protocol.mark_wanted) is not None:
                self.marks_wanted += 1
                self.protocol.mark_wanted = None
                if self.grants_marks:
                    wanting.is_marked = True
        return output

    def follow(self, transcript: str) -> None:
        """Says the server's lines and compares all that is written between with the client's."""
        expected = b""
        for line in transcript.strip("\n").split("\n"):
            if line.startswith("C "):
                expected += line[2:].encode() + b"\r\n"
            else:
                if expected:
                    assert self.written() == expected
                expected = b""
                self.protocol.receive(line[2:].encode().decode("unicode_escape").encode() + b"\r\n")
        assert self.written() == expected


def words(talk: Talk) -> str:
    """In which the session ended."""
    assert talk.protocol.closed is not None
    return talk.protocol.closed.words


def test_message_is_accepted() -> None:
    talk = Talk()
    transfer = talk.send()
    talk.follow(ACCEPTED)
    assert transfer.result == Reply(Stage.END, 250, "2.0.0", "queued")
    assert talk.protocol.settled == [transfer]
    assert talk.protocol.awaited is None
    assert talk.protocol.closed is None
    assert talk.protocol.begun == 1


def test_messages_follow_one_another_without_reset() -> None:
    talk = Talk()
    first, second = talk.send(), talk.send()
    talk.follow(ACCEPTED + ACCEPTED)
    assert first.result == second.result == Reply(Stage.END, 250, "2.0.0", "queued")


@pytest.mark.parametrize(
    ("reply", "code"), [("250 ok", 250), ("251 will forward", 251), ("252 cannot verify", 252), ("299 odd", 299)]
)
def test_recipient_is_taken_by_any_2xx(reply: str, code: int) -> None:
    talk = Talk()
    transfer = talk.send()
    talk.follow(f"{MAIL}\nS 250 ok\n{RCPT}\nS {reply}\nC DATA\nS 354 go on\n{MESSAGE_AND_END}\nS {reply}\n")
    assert isinstance(transfer.result, Reply)
    assert transfer.result.code == code
    assert judge(transfer.result).outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(
    "refusal", ["450 4.2.1 busy", "550 5.1.1 no such user", "550-5.1.1 no\\r\\n550 5.1.1 such user"]
)
@pytest.mark.parametrize(
    ("before", "stage", "after"),
    [
        pytest.param(MAIL, Stage.MAIL, "", id="MAIL"),
        pytest.param(f"{MAIL}\nS 250 ok\n{RCPT}", Stage.RCPT, "C RSET\nS 250 ok\n", id="RCPT"),
        pytest.param(f"{MAIL}\nS 250 ok\n{RCPT}\nS 250 ok\nC DATA", Stage.DATA, "C RSET\nS 250 ok\n", id="DATA"),
        pytest.param(ACCEPTED.rpartition("\nS")[0], Stage.END, "", id="end"),
    ],
)
def test_refusal_decides_its_message_and_not_the_next(before: str, stage: Stage, refusal: str, after: str) -> None:
    talk = Talk()
    refused, accepted = talk.send(), talk.send()
    talk.follow(f"{before}\nS {refusal}\n{after}{ACCEPTED}")
    assert isinstance(refused.result, Reply)
    assert (refused.result.stage, refused.result.code) == (stage, int(refusal[:3]))
    assert refused.result.enhanced == refusal[4:9]
    assert accepted.result == Reply(Stage.END, 250, "2.0.0", "queued")


@pytest.mark.parametrize(
    ("before", "stage"),
    [
        pytest.param(f"{MAIL}\nS 550 no\n{MAIL}", Stage.MAIL, id="MAIL after a refused MAIL"),
        pytest.param(f"{MAIL}\nS 250 ok\n{RCPT}\nS 550 no\nC RSET", Stage.MAIL, id="RSET"),
        pytest.param(f"{MAIL}\nS 550 no\n{MAIL}\nS 250 ok\n{RCPT}", Stage.RCPT, id="RCPT"),
        pytest.param(f"{MAIL}\nS 550 no\n{MAIL}\nS 250 ok\n{RCPT}\nS 250 ok\nC DATA", Stage.DATA, id="DATA"),
        pytest.param(f"{MAIL}\nS 550 no\n{ACCEPTED}".rpartition("\nS")[0], Stage.END, id="end"),
    ],
)
def test_421_decides_its_message_and_ends_the_session(before: str, stage: Stage) -> None:
    talk = Talk()
    _, ended, queued = talk.send(), talk.send(), talk.send()
    talk.follow(f"{before}\nS 421 4.3.2 closing\n")
    assert ended.result == Reply(stage, 421, "4.3.2", "closing")
    assert queued.result is None  # never begun
    assert words(talk) == "mail.example.com ended the session: 421 4.3.2 closing"
    assert talk.protocol.closed is not None
    assert judge(ended.result).outcome is Outcome.DEFERRED


@pytest.mark.parametrize(
    ("before", "stage", "word"),
    [
        pytest.param(MAIL, Stage.MAIL, "MAIL", id="MAIL"),
        pytest.param(f"{MAIL}\nS 250 ok\n{RCPT}", Stage.RCPT, "RCPT", id="RCPT"),
        pytest.param(f"{MAIL}\nS 250 ok\n{RCPT}\nS 250 ok\nC DATA", Stage.DATA, "DATA", id="DATA"),
        pytest.param(ACCEPTED.rpartition("\nS")[0], Stage.END, "the end of the message", id="end"),
    ],
)
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("354 go on", id="354"),
        pytest.param("334 who", id="334"),
        pytest.param("2_5 ok", id="underscore"),
        pytest.param("150 wait", id="150"),
        pytest.param("HTTP/1.1 400 Bad Request", id="HTTP"),
        pytest.param("250-a\\r\\n550 b", id="codes of two classes"),
    ],
)
def test_answer_out_of_place_is_a_desync(before: str, stage: Stage, word: str, answer: str) -> None:
    if stage is Stage.DATA and answer == "354 go on":
        answer = "250 ok"
    talk = Talk()
    transfer, queued = talk.send(), talk.send()
    talk.follow(f"{before}\nS {answer}\n")
    assert isinstance(transfer.result, Fault)
    assert (transfer.result.stage, transfer.result.kind) == (stage, Breakage.DESYNC)
    assert transfer.result.what.startswith("mail.example.com broke the protocol")
    assert queued.result is None  # never begun
    assert talk.protocol.closed is not None
    assert judge(transfer.result).outcome is (Outcome.IN_DOUBT if stage is Stage.END else Outcome.DEFERRED)


def test_refused_reset_ends_the_session() -> None:
    talk = Talk()
    _, second = talk.send(), talk.send()
    talk.follow(f"{MAIL}\nS 250 ok\n{RCPT}\nS 550 no\nC RSET\nS 500 what\n")
    assert second.result == Fault(
        Stage.MAIL, Breakage.DESYNC, "mail.example.com broke the protocol: it answered RSET with 500"
    )


@pytest.mark.parametrize("surplus", ["250 again", "250-and", "5", "550 no"])
@pytest.mark.parametrize(
    ("before", "stage"),
    [
        pytest.param(f"{MAIL}\nS 250 ok", Stage.MAIL, id="MAIL"),
        pytest.param(f"{MAIL}\nS 250 ok\n{RCPT}\nS 250 ok", Stage.RCPT, id="RCPT"),
    ],
)
def test_surplus_in_one_piece_with_a_reply_is_a_desync(before: str, stage: Stage, surplus: str) -> None:
    talk = Talk()
    transfer = talk.send()
    talk.follow(f"{before}\\r\\n{surplus}\n")
    assert isinstance(transfer.result, Fault)
    assert (transfer.result.stage, transfer.result.kind) == (stage, Breakage.DESYNC)


@pytest.mark.parametrize("early", ["250 queued", "250-queued", "299 x", "354 go on"])
def test_acceptance_before_the_end_is_not_believed(early: str) -> None:
    talk = Talk()
    transfer = talk.send()
    before = ACCEPTED.partition("S 354 go on")[0]
    talk.follow(f"{before}S 354 go on\\r\\n{early}\n")
    assert isinstance(transfer.result, Fault)
    assert (transfer.result.stage, transfer.result.kind) == (Stage.BODY, Breakage.DESYNC)
    assert judge(transfer.result).outcome is Outcome.DEFERRED


@pytest.mark.parametrize("early", ["552 5.3.4 too big", "451 4.3.0 no", "421 4.3.2 closing"])
def test_refusal_in_the_middle_of_the_body_decides(early: str) -> None:
    talk = Talk(grants_marks=False)
    transfer = talk.send()
    talk.follow(f"{ACCEPTED.partition(MESSAGE_AND_END)[0]}{MESSAGE_AND_END.removesuffix(chr(10) + 'C .')}\nS {early}\n")
    assert isinstance(transfer.result, Reply)
    assert (transfer.result.stage, transfer.result.code) == (Stage.BODY, int(early[:3]))
    assert talk.protocol.closed is not None


def test_surplus_after_the_last_reply_keeps_the_result_and_ends_the_session() -> None:
    talk = Talk()
    transfer = talk.send()
    talk.follow(f"{ACCEPTED.rstrip()}\\r\\n250 2.0.0 queued\n")
    assert transfer.result == Reply(Stage.END, 250, "2.0.0", "queued")
    assert talk.protocol.closed is not None


@pytest.mark.parametrize("said", ["421 4.4.2 idle", "250 hello", "hello"])
def test_unasked_words_while_idle_end_the_session(said: str) -> None:
    talk = Talk()
    talk.protocol.receive(f"{said}\r\n".encode())
    assert talk.protocol.closed is not None
    transfer = talk.send()
    assert talk.written() == b""
    assert transfer.result is None  # never begun
    assert said[:3] in words(talk)


def test_mark_is_wanted_when_the_envelope_is_written_and_the_end_waits_for_it() -> None:
    talk = Talk(grants_marks=False)
    transfer = talk.send()
    talk.follow(f"{MAIL}\nS 250 ok\n{RCPT}")
    assert talk.marks_wanted == 0
    talk.follow("S 250 ok\nC DATA")
    assert talk.marks_wanted == 1
    talk.protocol.receive(b"354 go on\r\n")
    assert talk.written() == MESSAGE
    assert transfer.stage.value == "body"
    assert talk.protocol.awaited is None
    transfer.is_marked = True
    assert talk.written() == b".\r\n"
    assert transfer.stage is Stage.END


def test_mark_is_wanted_once_a_message() -> None:
    talk = Talk()
    talk.send()
    talk.send()
    talk.follow(ACCEPTED + ACCEPTED)
    assert talk.marks_wanted == 2


def test_no_mark_is_wanted_for_a_refused_recipient() -> None:
    talk = Talk()
    talk.send()
    talk.follow(f"{MAIL}\nS 250 ok\n{RCPT}\nS 550 no\n")
    assert talk.marks_wanted == 0


@pytest.mark.parametrize(
    ("transcript", "stage", "where"),
    [
        pytest.param(MAIL, Stage.MAIL, "before it answered MAIL", id="MAIL"),
        pytest.param(f"{MAIL}\nS 250 ok\n{RCPT}", Stage.RCPT, "before it answered RCPT", id="RCPT"),
        pytest.param(ACCEPTED.partition("\nS 354")[0], Stage.DATA, "before it answered DATA", id="DATA"),
        pytest.param(ACCEPTED.rpartition("\nS")[0], Stage.END, "before it answered the end of the message", id="end"),
    ],
)
@pytest.mark.parametrize(
    ("event", "kind", "words"),
    [
        pytest.param(lambda talk: talk.lost(), Breakage.LOST, "mail.example.com closed the connection {}", id="lost"),
        pytest.param(
            lambda talk: talk.stop(), Breakage.STOPPED, "the session with mail.example.com was stopped {}", id="stopped"
        ),
    ],
)
def test_end_of_the_session_at_each_stage(
    transcript: str, stage: Stage, where: str, event: Callable[[Protocol], None], kind: Breakage, words: str
) -> None:
    talk = Talk()
    transfer = talk.send()
    talk.follow(transcript)
    event(talk.protocol)
    assert transfer.result == Fault(stage, kind, words.format(where))
    assert talk.written() == b""
    event(talk.protocol)  # once more changes nothing
    assert talk.protocol.settled == [transfer]


@pytest.mark.parametrize(
    ("transcript", "stage", "words"),
    [
        pytest.param(MAIL, Stage.MAIL, "did not answer MAIL within 5 min", id="MAIL"),
        pytest.param(
            ACCEPTED.rpartition("\nS")[0], Stage.END, "did not answer the end of the message within 5 min", id="end"
        ),
    ],
)
def test_time_out(transcript: str, stage: Stage, words: str) -> None:
    talk = Talk()
    transfer = talk.send()
    talk.follow(transcript)
    talk.protocol.timed_out(300)
    assert transfer.result == Fault(stage, Breakage.TIMEOUT, f"mail.example.com {words}")


def test_time_out_in_the_body() -> None:
    talk = Talk()
    transfer = talk.send()
    talk.follow(ACCEPTED.partition("\nS 354")[0])
    talk.protocol.receive(b"354 go on\r\n")
    assert talk.protocol.awaited is Step.BODY
    talk.protocol.timed_out(180)
    assert transfer.result == Fault(
        Stage.BODY, Breakage.TIMEOUT, "mail.example.com took nothing more of the message within 3 min"
    )


def test_goodbye_follows_the_last_message() -> None:
    talk = Talk()
    talk.send()
    talk.protocol.leave()
    talk.follow(f"{ACCEPTED}C QUIT\nS 221 bye\n")
    assert talk.protocol.closed is not None
    assert talk.protocol.closed is not None and talk.protocol.closed.why is CloseReason.GOODBYE


def test_no_goodbye_after_the_end() -> None:
    talk = Talk()
    talk.protocol.lost()
    talk.protocol.leave()
    assert talk.written() == b""


_SERVER = st.lists(
    st.sampled_from(
        [
            b"250 ok\r\n",
            b"250-ok\r\n",
            b"354 go\r\n",
            b"550 5.1.1 no\r\n",
            b"451 later\r\n",
            b"421 bye\r\n",
            b"220 \xff\x1b[2J\r\n",
            b"2",
            b"5\n",
            b"\r\n",
        ]
    )
    | st.binary(max_size=20),
    max_size=30,
)


@pytest.mark.slow
@many
@given(_SERVER, st.data())
def test_any_server_leads_to_honest_results(server: list[bytes], data: st.DataObject) -> None:
    """No exception, no acceptance without a 2xx that came after the terminator, each transfer decided once."""
    talk = Talk(grants_marks=False)
    transfers = [talk.send() for _ in range(4)]
    ended: set[int] = set()
    for piece in server:
        while (output := talk.protocol.next_output()) is not None:
            assert len(output) <= 65_536
            if (wanting := talk.protocol.mark_wanted) is not None:
                talk.protocol.mark_wanted = None
                if data.draw(st.booleans()):
                    wanting.is_marked = True
        ended |= {n for n, transfer in enumerate(transfers) if transfer.stage is Stage.END}
        settled = len(talk.protocol.settled)
        talk.protocol.receive(piece)
        newly = talk.protocol.settled[settled:]
        accepted = [transfer for transfer in newly if is_accepted(transfer)]
        assert len(accepted) <= 1
        for transfer in accepted:
            assert transfers.index(transfer) in ended
            assert transfer.is_marked
            assert b"\n" in piece
    talk.protocol.lost()
    begun = [transfer for transfer in transfers if transfer not in talk.waiting]
    assert sorted(map(id, talk.protocol.settled)) == sorted(map(id, begun))
    for transfer in begun:
        assert transfer.result is not None
        assert not has_control(str(transfer.result))
        if judge(transfer.result).outcome is Outcome.IN_DOUBT:
            assert transfer.stage is Stage.END


def is_accepted(transfer: Transfer) -> bool:
    return transfer.result is not None and judge(transfer.result).outcome is Outcome.ACCEPTED
