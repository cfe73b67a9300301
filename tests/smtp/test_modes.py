"""PeerPolicy of the replies: what is written together, and to whom each reply belongs."""

from __future__ import annotations

from collections import deque
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.outcome import Breakage, Fault, Outcome, Reply, Stage
from bulkmail.model.verdict import judge
from bulkmail.smtp.peer_policy import CloseReason, Mode, PeerPolicy, Probing, Terms
from bulkmail.smtp.protocol import PROBE, Protocol
from bulkmail.smtp.replies import Capabilities
from bulkmail.smtp.transaction import Transfer
from tests.examples import many

BODY = b"Subject: hello\r\n\r\nDear all\r\n"
ENVELOPE = "MAIL FROM:<s@example.org>\r\nRCPT TO:<p{}@example.com>\r\n"
GROUP = ENVELOPE + "DATA\r\n"
CHUNK = "BDAT 28 LAST\r\n" + BODY[:-2].decode()
OK = b"250 2.1.0 ok\r\n"
GO = b"354 go on\r\n"
NO = b"550 5.1.1 who?\r\n"


class Talk:
    """Transactions in some mode, with as many messages as wanted; marks are granted unless held."""

    def __init__(
        self, mode: Mode, *, messages: int, depth: int = 4, grants_marks: bool = True, policy: PeerPolicy | None = None
    ) -> None:
        self.policy = policy or PeerPolicy()
        self.policy.depth = depth
        self.protocol = Protocol(Terms(Capabilities(), mode), self.policy, peer="mail.example.com")
        self.transfers = [
            Transfer(Message(Envelope("s@example.org", f"p{n}@example.com"), f"<{n}@example.org>", (BODY,)))
            for n in range(messages)
        ]
        self.waiting = deque(self.transfers)
        self.grants_marks = grants_marks
        self.held: list[Transfer] = []
        self.protocol.more = lambda: self.waiting.popleft() if self.waiting else None

    def writes(self) -> list[bytes]:
        """What is written now, write by write."""
        outputs = []
        while (output := self.protocol.next_output()) is not None:
            outputs.append(bytes(output))
            if (wanting := self.protocol.mark_wanted) is not None:
                self.protocol.mark_wanted = None
                if self.grants_marks:
                    wanting.is_marked = True
                else:
                    self.held.append(wanting)
        return outputs

    def written(self) -> bytes:
        return b"".join(self.writes())

    def hears(self, *replies: bytes) -> None:
        self.protocol.receive(b"".join(replies))

    def codes(self) -> list[int | None]:
        """How each message was decided, so far; a fault shows as 0."""
        return [
            None if e.result is None else e.result.code if isinstance(e.result, Reply) else 0 for e in self.transfers
        ]


def test_pipelining_takes_one_round_trip_a_message() -> None:
    talk = Talk(Mode.PIPELINING, messages=3)
    assert talk.writes() == [GROUP.format(0).encode()]
    talk.hears(OK, OK, GO)
    assert talk.writes() == [BODY + b".\r\n" + GROUP.format(1).encode()]
    talk.hears(OK, OK, OK, GO)
    assert talk.writes() == [BODY + b".\r\n" + GROUP.format(2).encode()]
    assert talk.codes() == [250, None, None]
    talk.hears(OK, OK, OK, GO)
    assert talk.writes() == [BODY + b".\r\n"]
    talk.hears(OK)
    assert talk.codes() == [250, 250, 250]
    assert talk.protocol.is_idle


def test_terminator_goes_alone_when_no_message_is_ready_and_the_next_follows_at_once() -> None:
    talk = Talk(Mode.PIPELINING, messages=1)
    talk.written()
    talk.hears(OK, OK, GO)
    assert talk.writes() == [BODY + b".\r\n"]
    late = Transfer(talk.transfers[0].message)
    talk.waiting.append(late)
    assert talk.writes() == [GROUP.format(0).encode()]


@pytest.mark.parametrize("mode", [Mode.PIPELINING, Mode.CHUNKING])
def test_refused_recipient_is_followed_by_reset(mode: Mode) -> None:
    talk = Talk(mode, messages=2)
    talk.written()
    talk.hears(OK, NO, b"554 5.5.1 no valid recipients\r\n" if mode is Mode.PIPELINING else b"")
    assert talk.codes() == [550, None]
    assert isinstance(talk.transfers[0].result, Reply) and talk.transfers[0].result.stage is Stage.RCPT
    assert talk.written().startswith(b"RSET\r\nMAIL FROM")


def test_lone_dot_answers_354_after_the_only_recipient_was_refused() -> None:
    talk = Talk(Mode.PIPELINING, messages=2)
    talk.written()
    talk.hears(OK, NO, GO)
    assert talk.writes() == [b".\r\n", GROUP.format(1).encode()]
    talk.hears(b"250 2.0.0 took nothing\r\n")
    assert talk.codes() == [550, None]


def test_354_after_a_refused_sender_with_an_accepted_recipient_is_never_ended() -> None:
    """Its end would be mail from someone else, or an empty one."""
    talk = Talk(Mode.PIPELINING, messages=2)
    talk.written()
    talk.hears(b"503 5.5.1 nested MAIL\r\n", OK, GO)
    assert talk.protocol.closed is not None
    assert talk.codes() == [503, None]
    assert talk.written() == b""


def test_refused_mail_consumes_the_moot_replies() -> None:
    talk = Talk(Mode.PIPELINING, messages=2)
    talk.written()
    talk.hears(b"451 4.3.0 later\r\n")
    assert talk.codes() == [None, None]
    talk.hears(b"503 need MAIL\r\n", b"503 need RCPT\r\n")
    assert talk.codes() == [451, None]
    assert talk.transfers[0].result == Reply(Stage.MAIL, 451, "4.3.0", "later")
    assert talk.written().startswith(b"RSET\r\nMAIL FROM")


def test_refused_end_does_not_touch_the_message_behind() -> None:
    talk = Talk(Mode.PIPELINING, messages=2)
    talk.written()
    talk.hears(OK, OK, GO)
    talk.written()
    talk.hears(b"554 5.7.1 spam\r\n", OK, OK, GO)
    assert talk.written() == BODY + b".\r\n"
    talk.hears(OK)
    assert talk.codes() == [554, 250]


def test_421_to_the_end_defers_what_follows() -> None:
    talk = Talk(Mode.PIPELINING, messages=2)
    talk.written()
    talk.hears(OK, OK, GO)
    talk.written()
    talk.hears(b"421 4.3.2 going down\r\n")
    assert talk.codes() == [421, None]
    talk.protocol.lost()
    second = talk.transfers[1].result
    assert isinstance(second, Fault) and judge(second).outcome is Outcome.DEFERRED


def test_chunking_sends_content_after_the_recipient_and_the_next_envelope_with_its_end() -> None:
    talk = Talk(Mode.CHUNKING, messages=2)
    assert talk.writes() == [ENVELOPE.format(0).encode()]
    talk.hears(OK, OK)
    assert talk.writes() == [CHUNK.encode() + b"\r\nRSET\r\n" + ENVELOPE.format(1).encode()]
    talk.hears(OK, OK, OK, OK)
    assert talk.codes() == [250, None]


@pytest.mark.parametrize("mode", [Mode.PIPELINING, Mode.CHUNKING])
def test_terminator_waits_for_the_mark(mode: Mode) -> None:
    talk = Talk(mode, messages=2, grants_marks=False)
    talk.written()
    talk.hears(OK, OK, GO if mode is Mode.PIPELINING else b"")
    written = talk.written()
    assert written in (BODY, CHUNK.encode())
    assert talk.transfers[0].stage is Stage.BODY
    talk.held[0].is_marked = True
    assert talk.written().startswith(b".\r\nMAIL" if mode is Mode.PIPELINING else b"\r\nRSET\r\nMAIL")
    assert talk.transfers[0].stage is Stage.END


def deep(messages: int, *, depth: int = 4, grants_marks: bool = True) -> Talk:
    """With a server that another session has found to swallow the chunks that it refuses."""
    talk = Talk(Mode.DEEP, messages=messages, depth=depth, grants_marks=grants_marks, policy=passed())
    assert talk.protocol.mode is Mode.DEEP
    return talk


def passed() -> PeerPolicy:
    policy = PeerPolicy()
    policy.passed(Capabilities())
    return policy


def probing(*, messages: int = 2, policy: PeerPolicy | None = None) -> Talk:
    """A session that has sent its first message and now asks whether it may go deep."""
    talk = Talk(Mode.DEEP, messages=messages, policy=policy)
    assert talk.writes() == [GROUP.format(0).encode()]
    talk.hears(OK, OK, GO)
    assert talk.writes() == [BODY + b".\r\n"]
    talk.hears(OK)
    assert talk.codes() == [250] + [None] * (messages - 1)
    assert talk.writes() == [PROBE]
    return talk


def test_deep_begins_with_one_message_and_doubles_while_all_goes_well() -> None:
    talk = deep(20)
    assert talk.written() == (ENVELOPE.format(0) + CHUNK + "\r\n").encode()
    under_way = []
    while None in talk.codes():
        under_way.append(sum(e.to_write is not None and e.stage is not Stage.MAIL and e.result is None
                             for e in talk.transfers))  # fmt: skip
        slots = len(talk.protocol._expected)
        talk.hears(*[OK] * slots)
        talk.written()
    assert under_way == [1, 2, 4, 4, 4, 4, 1]
    assert talk.codes() == [250] * 20


def test_deep_leads_each_group_with_reset_while_others_are_under_way() -> None:
    talk = deep(4)
    talk.protocol.window.size = 4
    assert (
        talk.written()
        == "".join(("RSET\r\n" if n else "") + ENVELOPE.format(n) + CHUNK + "\r\n" for n in range(4)).encode()
    )


def test_deep_books_a_refusal_to_its_own_message() -> None:
    talk = deep(3)
    talk.protocol.window.size = 4
    talk.written()
    talk.hears(OK, NO, b"503 5.5.1 no recipient\r\n", OK, OK, OK, OK, OK, OK, NO, b"554 5.5.1 x\r\n")
    assert talk.codes() == [550, 250, 550]
    assert all(isinstance(e.result, Reply) for e in talk.transfers)


def test_deep_2xx_to_the_chunk_counts_whatever_mail_answered() -> None:
    talk = deep(1)
    talk.written()
    talk.hears(b"503 5.5.1 nested MAIL\r\n", OK, b"250 2.0.0 queued\r\n")
    result = talk.transfers[0].result
    assert isinstance(result, Reply) and judge(result).outcome is Outcome.ACCEPTED


def test_deep_loss_leaves_exactly_those_in_doubt_whose_end_was_written() -> None:
    talk = deep(4, grants_marks=False)
    talk.protocol.window.size = 4
    talk.written()
    talk.held[0].is_marked = True
    talk.written()
    talk.held[1].is_marked = True
    talk.written()
    talk.protocol.lost()
    outcomes = [judge(e.result).outcome if e.result else None for e in talk.transfers]
    assert outcomes == [Outcome.IN_DOUBT, Outcome.IN_DOUBT, Outcome.DEFERRED, None]


def test_deep_421_then_the_end_defers_the_rest() -> None:
    talk = deep(3)
    talk.protocol.window.size = 4
    talk.written()
    talk.hears(OK, OK, OK, OK, b"421 4.3.2 going down\r\n")
    talk.protocol.lost()
    assert [judge(e.result).outcome for e in talk.transfers if e.result] == [
        Outcome.ACCEPTED,
        Outcome.DEFERRED,
        Outcome.DEFERRED,
    ]


def test_first_message_is_sent_before_the_probe_and_the_others_go_deep() -> None:
    talk = probing(messages=3)
    talk.hears(b"503 5.5.1 no transaction\r\n", OK)
    assert talk.protocol.mode is Mode.DEEP
    assert talk.written() == (ENVELOPE.format(1) + CHUNK + "\r\n").encode()
    talk.hears(OK, OK, OK)
    talk.written()
    talk.hears(OK, OK, OK)
    assert talk.codes() == [250, 250, 250]


def test_probe_is_not_sent_when_no_message_follows() -> None:
    talk = Talk(Mode.DEEP, messages=1)
    talk.written()
    talk.hears(OK, OK, GO)
    talk.written()
    talk.hears(OK)
    assert talk.writes() == []
    assert talk.protocol.is_idle and talk.policy.trial is Probing.UNTRIED


def test_other_sessions_do_not_probe_while_one_does_and_go_deep_when_it_is_known() -> None:
    first = probing()
    other = Talk(Mode.DEEP, messages=4, policy=first.policy)
    other.written()
    other.hears(OK, OK, GO)
    assert other.writes() == [BODY + b".\r\n" + GROUP.format(1).encode()]  # it does not wait for the answer
    first.hears(b"503 5.5.1 no transaction\r\n", OK)
    other.hears(OK, OK, OK, GO)
    assert other.writes() == [BODY + b".\r\n"]  # nothing is under way when it changes
    other.hears(OK)
    assert other.written() == (ENVELOPE.format(2) + CHUNK + "\r\n").encode()
    assert other.codes() == [250, 250, None, None]


def test_server_of_another_kind_behind_the_same_name_gets_no_chunk() -> None:
    policy = PeerPolicy()
    policy.passed(Capabilities(dsn=True))
    talk = Talk(Mode.DEEP, messages=2, policy=policy)
    talk.written()
    talk.hears(OK, OK, GO)
    talk.written()
    talk.hears(OK)
    assert talk.writes() == [GROUP.format(1).encode()]


def test_server_that_takes_a_refused_chunk_for_commands_never_gets_one_again() -> None:
    talk = probing()
    talk.hears(b"503 5.5.1 no transaction\r\n", b"500 5.5.2 XNOP?\r\n", OK)
    assert talk.protocol.mode is Mode.PIPELINING
    assert talk.written() == GROUP.format(1).encode()
    assert talk.policy.trial is Probing.FAILED


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([b"421 4.7.0 too many errors\r\n"], id="421"),
        pytest.param([b"503 5.5.1 no\r\n", b"554 Too many syntax or protocol errors\r\n"], id="554"),
        pytest.param([], id="silence"),
        pytest.param([b"503 5.5.1 no\r\n"], id="half"),
        pytest.param([OK], id="250"),
        pytest.param([GO], id="354"),
        pytest.param([b"503 x\r\n", b"450 y\r\n"], id="450"),
        pytest.param([b"nonsense\r\n"], id="nonsense"),
    ],
)
@pytest.mark.parametrize("is_silent", [False, True], ids=["hangs up", "goes silent"])
def test_session_that_ends_in_the_probe_is_the_last_one_that_does(replies: list[bytes], is_silent: bool) -> None:
    talk = probing()
    talk.hears(*replies)
    if is_silent:
        talk.protocol.timed_out(30.0)
    else:
        talk.protocol.lost()
    assert talk.protocol.closed is not None and talk.protocol.closed.why is CloseReason.PROBED
    assert talk.policy.trial is Probing.FAILED
    second = talk.transfers[1].result
    assert isinstance(second, Fault) and (second.stage, second.kind) == (Stage.MAIL, Breakage.LOST)
    later = Talk(Mode.DEEP, messages=2, policy=talk.policy)
    later.written()
    later.hears(OK, OK, GO)
    assert later.writes() == [BODY + b".\r\n" + GROUP.format(1).encode()]


def test_probe_that_we_give_up_ourselves_says_nothing() -> None:
    talk = probing()
    talk.protocol.stop()
    assert talk.policy.trial is Probing.UNTRIED
    second = talk.transfers[1].result
    assert isinstance(second, Fault) and second.kind is Breakage.STOPPED


OUT_OF_TURN = b"503 Bad sequence of commands - pipelined after end of DATA\r\n"


def test_server_that_refuses_what_is_behind_the_end_is_never_written_to_there_again() -> None:
    talk = Talk(Mode.PIPELINING, messages=3)
    talk.written()
    talk.hears(OK, OK, GO)
    assert talk.writes() == [BODY + b".\r\n" + GROUP.format(1).encode()]
    talk.hears(OK, OUT_OF_TURN, OUT_OF_TURN)
    assert talk.writes() == []
    talk.hears(OUT_OF_TURN)
    assert talk.codes() == [250, None, None]
    assert talk.writes() == [b"RSET\r\n" + GROUP.format(1).encode()]
    talk.hears(OK, OK, OK, GO)
    assert talk.writes() == [BODY + b".\r\n"]
    talk.hears(OK)
    assert talk.writes() == [GROUP.format(2).encode()]
    talk.hears(OK, OK, GO)
    talk.written()
    talk.hears(OK)
    assert talk.codes() == [250, 250, 250] and talk.protocol.begun == 3
    assert talk.protocol.is_idle


def test_other_sessions_learn_what_is_refused_behind_an_end() -> None:
    policy = PeerPolicy()
    first, other = (Talk(Mode.PIPELINING, messages=2, policy=policy) for _ in range(2))
    for talk in (first, other):
        talk.written()
    first.hears(OK, OK, GO)
    first.written()
    first.hears(OK, OUT_OF_TURN, OUT_OF_TURN, OUT_OF_TURN)
    other.hears(OK, OK, GO)
    assert other.writes() == [BODY + b".\r\n"]


def test_mark_of_a_message_that_was_not_heard_holds_when_it_goes_again() -> None:
    talk = Talk(Mode.PIPELINING, messages=2, grants_marks=False)
    talk.written()
    talk.held[0].is_marked = True
    talk.hears(OK, OK, GO)
    talk.written()
    talk.hears(OK, OUT_OF_TURN, OUT_OF_TURN, OUT_OF_TURN)
    talk.written()
    assert len(talk.held) == 2  # it was asked for once
    talk.hears(OK, OK, OK, GO)
    assert talk.writes() == [BODY]
    talk.held[1].is_marked = True
    assert talk.writes() == [b".\r\n"]


def test_503_to_a_message_that_was_written_in_its_turn_is_its_own() -> None:
    talk = Talk(Mode.PIPELINING, messages=1)
    talk.written()
    talk.hears(OUT_OF_TURN, OUT_OF_TURN, OUT_OF_TURN)
    assert talk.codes() == [503]


def test_deep_messages_that_were_not_heard_are_not_attempted() -> None:
    talk = deep(3)
    talk.protocol.window.size = 4
    talk.written()
    talk.hears(OK, OK, OK, *[OUT_OF_TURN] * 8)
    talk.protocol.lost()
    assert not talk.policy.crosses_ends
    for transfer in talk.transfers[1:]:
        event = transfer.result
        assert isinstance(event, Fault) and (event.stage, event.kind) == (Stage.MAIL, Breakage.LOST)


def test_hanging_up_on_the_first_group_is_noticed() -> None:
    talk = Talk(Mode.PIPELINING, messages=1)
    talk.written()
    talk.protocol.lost()
    assert talk.protocol.closed is not None and talk.protocol.closed.why is CloseReason.UNANSWERED
    assert isinstance(talk.transfers[0].result, Fault)
    assert talk.transfers[0].result.kind is Breakage.LOST


class Server:
    """Reads what is written as a server would, and keeps which reply slot ends which message."""

    def __init__(self) -> None:
        self.slots: list[str | None] = []  # the forward path of the message that the reply decides, or None
        self.path = ""
        self.buffer = b""
        self.chunk = 0
        self.in_data = False

    def reads(self, data: bytes) -> None:
        self.buffer += data
        while self.buffer:
            if self.chunk:
                taken = self.buffer[: self.chunk]
                self.buffer, self.chunk = self.buffer[len(taken) :], self.chunk - len(taken)
                continue
            line, end, rest = self.buffer.partition(b"\r\n")
            if not end:
                return
            self.buffer = rest
            if self.in_data:
                if line == b".":
                    self.in_data = False
                    self.slots.append(self.path)
            elif line.startswith(b"BDAT 6"):
                self.slots.append(None)
                self.chunk = 6
            elif line.startswith(b"BDAT"):
                self.slots.append(self.path)
                self.chunk = int(line.split()[1])
            else:
                self.slots.append(None)
                if line.startswith(b"RCPT"):
                    self.path = line[9:-1].decode()


_REPLY = st.sampled_from(
    [OK, OK, OK, OK, OK, GO, GO, NO, b"503 x\r\n", b"554 y\r\n", b"421 z\r\n", b"451 w\r\n", b"250-a\r\n250 b\r\n"]
)


@pytest.mark.slow
@many
@given(
    st.sampled_from([Mode.PLAIN, Mode.PIPELINING, Mode.CHUNKING, Mode.DEEP]),
    st.lists(_REPLY, max_size=60),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
    st.integers(1, 8),
)
def test_no_reply_is_booked_to_another_message(mode: Mode, replies: list[bytes], cuts: list[int], depth: int) -> None:
    """Against a reading of the wire of its own: accepted is who got a 2xx in the slot of his own end."""
    talk = Talk(mode, messages=12, depth=depth)
    server = Server()
    stream, said, codes = b"".join(replies), b"", []
    server.reads(talk.written())
    for number in count():
        if len(said) == len(stream):
            break
        heard = len(codes)
        piece = stream[len(said) :][: cuts[number % len(cuts)]]
        said += piece
        talk.hears(piece)
        codes = [int(line[:3]) for line in said.split(b"\r\n")[:-1] if line[3:4] == b" "]
        for code, slot in zip(codes[heard:], server.slots[heard:], strict=False):
            server.in_data = server.in_data or (code == 354 and slot is None)
        server.reads(talk.written())
    talk.protocol.lost()
    ends = zip(server.slots, codes, strict=False)
    granted = {path for path, code in ends if path is not None and 200 <= code < 300}
    for transfer in talk.transfers:
        if transfer.result is not None and judge(transfer.result).outcome is Outcome.ACCEPTED:
            assert transfer.message.envelope.forward_path in granted


class Counting:
    """Reads as a server, knows some people, and ends the session at the 11th RSET but the first after each message."""

    def __init__(self, known: list[bool]) -> None:
        self.known = known
        self.idle = 0
        self.is_free = True
        self.is_chunk = False
        self.is_valid = False
        self.buffer = b""

    def answers(self, data: bytes) -> list[bytes]:
        self.buffer += data
        replies = []
        while b"\r\n" in self.buffer:
            line, _, rest = self.buffer.partition(b"\r\n")
            if line.startswith(b"BDAT"):
                size = int(line.split()[1])
                if len(rest) < size:
                    break
                rest = rest[size:]
                replies.append(OK if self.is_valid else b"503 5.5.1 no one\r\n")
                self.is_free = self.is_free or self.is_valid
            elif line == b"RSET":
                self.idle += not self.is_free
                self.is_free = False
                if self.idle > 10:
                    return [*replies, b"554 Too many nonmail commands\r\n"]
                replies.append(OK)
            elif line.startswith(b"RCPT"):
                self.is_valid = self.known[int(line.partition(b"<p")[2].partition(b"@")[0])]
                replies.append(OK if self.is_valid else NO)
            else:
                self.is_valid = False
                replies.append(OK)
            self.buffer = rest
        return replies


@pytest.mark.slow
@many
@given(st.lists(st.booleans(), min_size=1, max_size=80), st.integers(2, 10))
def test_session_is_left_before_a_server_that_counts_resets_ends_it(known: list[bool], depth: int) -> None:
    talk = Talk(Mode.DEEP, messages=len(known), depth=depth, policy=passed())
    protocol, server, waiting = talk.protocol, Counting(known), iter(talk.transfers)
    protocol.more = lambda: None if protocol.window.is_used_up else next(waiting, None)
    while written := talk.written():
        for reply in server.answers(written):
            assert not reply.startswith(b"554")
            talk.hears(reply)
    assert protocol.window.is_used_up or None not in talk.codes()
    for code, is_known in zip(talk.codes(), known, strict=True):
        assert code in (None, 250 if is_known else 550)
    assert not protocol.window.is_used_up or talk.codes().count(550) >= 10


def test_refused_reset_is_a_farewell_and_what_was_not_answered_behind_it_was_not_taken() -> None:
    talk = deep(4)
    talk.protocol.window.size = 4
    talk.written()
    talk.hears(OK, NO, b"503 5.5.1 no recipient\r\n", b"554 Too many nonmail commands\r\n")
    assert talk.codes() == [550, None, None, None]
    talk.protocol.lost()
    assert talk.protocol.closed is None or talk.protocol.closed.why is not CloseReason.BROKE_PROTOCOL
    for transfer in talk.transfers[1:]:
        assert transfer.result == Fault(
            Stage.MAIL, Breakage.LOST, "mail.example.com ended the session: 554 Too many nonmail commands"
        )


def test_refused_reset_without_an_end_of_the_session_leaves_in_doubt() -> None:
    talk = deep(2)
    talk.protocol.window.size = 4
    talk.written()
    talk.hears(OK, NO, b"503 5.5.1 no recipient\r\n", b"550 not now\r\n")
    talk.protocol.timed_out(30)
    second = talk.transfers[1].result
    assert second is not None and judge(second).outcome is Outcome.IN_DOUBT


def test_message_taken_behind_a_refused_reset_is_accepted() -> None:
    talk = deep(2)
    talk.protocol.window.size = 4
    talk.written()
    talk.hears(OK, OK, OK, b"550 not now\r\n", OK, OK, OK)
    assert talk.codes() == [250, 250]
    assert talk.protocol.closed is not None


def test_server_that_goes_on_behind_a_refused_reset_may_have_taken_what_it_did_not_answer() -> None:
    talk = deep(2)
    talk.protocol.window.size = 4
    talk.written()
    talk.hears(OK, OK, OK, b"550 not now\r\n", OK, OK)
    talk.protocol.lost()
    second = talk.transfers[1].result
    assert second is not None and judge(second).outcome is Outcome.IN_DOUBT


def test_chunk_for_no_one_stays_refused_whatever_the_server_says_to_it() -> None:
    talk = deep(1)
    talk.written()
    talk.hears(OK, NO, b"250 2.0.0 queued\r\n")
    assert talk.codes() == [550]


def test_end_waits_for_the_mark_when_a_recipient_was_taken_although_the_sender_was_refused() -> None:
    talk = deep(1, grants_marks=False)
    talk.written()
    talk.hears(b"503 5.5.1 nested MAIL\r\n", OK)
    assert talk.written() == b""
    talk.held[0].is_marked = True
    assert talk.written() == b"\r\n"
    talk.protocol.lost()
    result = talk.transfers[0].result
    assert result is not None and judge(result).outcome is Outcome.IN_DOUBT
