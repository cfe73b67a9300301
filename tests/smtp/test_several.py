"""Several recipients in one transaction, in every mode and by LMTP: one outcome each, whatever the server says."""

from __future__ import annotations

from collections import deque
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.outcome import Fault, Outcome, Reply, Stage
from bulkmail.model.recipient import has_control
from bulkmail.model.verdict import judge
from bulkmail.smtp.peer_policy import Mode, PeerPolicy, Terms
from bulkmail.smtp.protocol import Protocol
from bulkmail.smtp.replies import Capabilities
from bulkmail.smtp.transaction import Transfer
from tests.examples import many

BODY = b"Subject: hello\r\n\r\nDear all\r\n"
OK, GO, NO, LATER = b"250 2.1.0 ok\r\n", b"354 go on\r\n", b"550 5.1.1 who?\r\n", b"451 4.3.0 later\r\n"
BAD = b"503 5.5.1 need more\r\n"
NAMES = "abcdefgh"

MODES = [Mode.PLAIN, Mode.PIPELINING, Mode.CHUNKING, Mode.DEEP]
WAYS = [(mode, False) for mode in MODES] + [(Mode.PLAIN, True), (Mode.PIPELINING, True)]
every_way = pytest.mark.parametrize(
    ("mode", "is_lmtp"), WAYS, ids=[f"{'lmtp-' * lmtp}{mode.name.lower()}" for mode, lmtp in WAYS]
)
every_mode = pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())


def make_message(number: int, recipients: int) -> Transfer:
    first, *others = (f"{name}{number}@example.com" for name in NAMES[:recipients])
    return Transfer(Message(Envelope("s@example.org", first, tuple(others)), f"<{number}@example.org>", (BODY,)))


class Talk:
    """Transactions and a server that reads what they write, and answers each step as told, or as usual."""

    def __init__(
        self,
        mode: Mode,
        recipients: list[int],
        *,
        is_lmtp: bool = False,
        depth: int = 4,
        grants_marks: bool = True,
        window: int = 1,
    ) -> None:
        policy = PeerPolicy(depth=depth)
        policy.passed(Capabilities())
        self.protocol = Protocol(Terms(Capabilities(), mode, is_lmtp=is_lmtp), policy, peer="mail.example.com")
        self.protocol.window.size = window
        self.transfers = [make_message(number, many) for number, many in enumerate(recipients)]
        self.waiting = deque(self.transfers)
        self.grants_marks = grants_marks
        self.held: list[Transfer] = []
        self.protocol.more = lambda: self.waiting.popleft() if self.waiting else None
        self.server = Server(is_lmtp=is_lmtp)
        self.writes()

    def writes(self) -> None:
        while (output := self.protocol.next_output()) is not None:
            self.server.reads(bytes(output))
            if (wanting := self.protocol.mark_wanted) is not None:
                self.protocol.mark_wanted = None
                if self.grants_marks:
                    wanting.is_marked = True
                else:
                    self.held.append(wanting)

    def serve(self, answers: dict[str, bytes], *, most: int = 1000) -> None:
        """Answers every step, `"rcpt b0@example.com"`, `"end 0"`, as `answers` say or as usual, step by step."""
        for _ in range(most):
            if len(self.server.codes) >= len(self.server.slots) or self.protocol.closed is not None:
                return
            slot = self.server.slots[len(self.server.codes)]
            if slot.step == "end" and slot.message not in self.server.ended:
                return  # the rest of the chunk is to come
            usual = {"data": GO if self.server.has_recipients else BAD}.get(slot.step, OK)
            if slot.step == "end" and not self.server.has_recipients:
                usual = BAD
            self.hears(answers.get(slot.name, usual))

    def hears(self, reply: bytes) -> None:
        self.server.says(reply)
        self.protocol.receive(reply)
        self.writes()

    def outcomes(self) -> list[list[str]]:
        return [
            [word(transfer.own.get(number, transfer.result)) for number in range(len(transfer.paths))]
            for transfer in self.transfers
        ]


def word(event: Reply | Fault | None) -> str:
    return "?" if event is None else judge(event).outcome.value


class Slot:
    """A place where one reply belongs."""

    def __init__(self, step: str, message: int, path: str = "") -> None:
        self.step, self.message, self.path = step, message, path

    @property
    def name(self) -> str:
        return f"{self.step} {self.path or self.message}"


class Server:
    """Reads the wire by itself, and knows which reply belongs where."""

    def __init__(self, *, is_lmtp: bool) -> None:
        self.is_lmtp = is_lmtp
        self.slots: list[Slot] = []
        self.codes: list[int] = []
        self.message = -1
        self.ended: set[int] = set()
        self.buffer = b""
        self.chunk = 0
        self.in_data = False

    @property
    def has_recipients(self) -> bool:
        message = self.slots[len(self.codes)].message
        return any(slot.message == message and slot.step == "rcpt" and code < 300 for slot, code in self.answered())

    def answered(self) -> list[tuple[Slot, int]]:
        return list(zip(self.slots, self.codes, strict=False))

    def says(self, reply: bytes) -> None:
        code = int(reply[:3])
        if len(self.codes) < len(self.slots) and self.slots[len(self.codes)].step == "data" and code == 354:
            self.in_data = True
        self.codes.append(code)

    def accepted(self, message: int) -> list[str]:
        return [s.path for s, code in self.answered() if s.message == message and s.step == "rcpt" and code < 300]

    def reads(self, data: bytes) -> None:
        self.buffer += data
        while self.buffer:
            if self.chunk:
                taken = self.buffer[: self.chunk]
                self.buffer, self.chunk = self.buffer[len(taken) :], self.chunk - len(taken)
                if not self.chunk:
                    self.ended.add(self.message)
                continue
            line, end, rest = self.buffer.partition(b"\r\n")
            if not end:
                return
            self.buffer = rest
            if self.in_data:
                if line == b".":
                    self.in_data = False
                    self.ended.add(self.message)
                    paths = self.accepted(self.message) if self.is_lmtp else [""]
                    self.slots += [Slot("end", self.message, path) for path in paths]
                continue
            self._command(line)

    def _command(self, line: bytes) -> None:
        step = line[:4].lower().decode()
        if step == "bdat":
            self.chunk = int(line.split()[1])
            step = "end"
        elif step == "mail":
            self.message += 1
        path = line[9:-1].decode() if step == "rcpt" else ""
        if path:  # one that was not heard comes again
            self.message = self.slots[-1].message = int(path[1:].partition("@")[0])
        self.slots.append(Slot(step, self.message, path))


@every_way
def test_all_is_named_and_accepted(mode: Mode, is_lmtp: bool) -> None:
    talk = Talk(mode, [3, 1, 2], is_lmtp=is_lmtp)
    talk.serve({})
    assert talk.outcomes() == [["accepted"] * 3, ["accepted"], ["accepted"] * 2]
    assert [slot.path for slot in talk.server.slots if slot.step == "rcpt"] == [
        path for transfer in talk.transfers for path in transfer.paths
    ]
    assert talk.protocol.is_idle


@every_way
@pytest.mark.parametrize("refused", ["a0", "b0", "c0"])
def test_refused_recipient_is_refused_alone(mode: Mode, is_lmtp: bool, refused: str) -> None:
    talk = Talk(mode, [3, 2], is_lmtp=is_lmtp)
    talk.serve({f"rcpt {refused}@example.com": NO})
    assert talk.outcomes() == [
        ["rejected" if f"{name}0" == refused else "accepted" for name in "abc"],
        ["accepted", "accepted"],
    ]


@every_way
def test_transaction_that_no_one_is_left_in_is_reset(mode: Mode, is_lmtp: bool) -> None:
    talk = Talk(mode, [2, 2], is_lmtp=is_lmtp)
    talk.serve({"rcpt a0@example.com": NO, "rcpt b0@example.com": LATER})
    assert talk.outcomes() == [["rejected", "deferred"], ["accepted", "accepted"]]
    assert "rset" in [slot.step for slot in talk.server.slots if slot.message == 0]


@every_way
def test_refused_sender_is_everyones_refusal(mode: Mode, is_lmtp: bool) -> None:
    talk = Talk(mode, [3, 1], is_lmtp=is_lmtp)
    moot = {f"rcpt {name}0@example.com": NO for name in "abc"}
    talk.serve({"mail 0": LATER, **moot})
    assert [talk.transfers[0].own.get(n, talk.transfers[0].result) for n in range(3)] == [
        Reply(Stage.MAIL, 451, "4.3.0", "later")
    ] * 3
    assert talk.outcomes()[1] == ["accepted"]


@every_way
def test_refused_content_is_the_refusal_of_those_who_were_left(mode: Mode, is_lmtp: bool) -> None:
    talk = Talk(mode, [3, 1], is_lmtp=is_lmtp)
    spam = b"554 5.7.1 spam\r\n"
    talk.serve({"rcpt b0@example.com": LATER, "end 0": spam, "end a0@example.com": spam, "end c0@example.com": spam})
    assert talk.outcomes() == [["rejected", "deferred", "rejected"], ["accepted"]]


@pytest.mark.parametrize("mode", [Mode.PLAIN, Mode.PIPELINING], ids=lambda mode: mode.name.lower())
@pytest.mark.parametrize("is_lmtp", [False, True], ids=["smtp", "lmtp"])
def test_refused_data_is_the_refusal_of_those_who_were_left(mode: Mode, is_lmtp: bool) -> None:
    talk = Talk(mode, [2, 1], is_lmtp=is_lmtp)
    talk.serve({"rcpt a0@example.com": NO, "data 0": LATER})
    assert talk.outcomes() == [["rejected", "deferred"], ["accepted"]]
    assert [slot.step for slot in talk.server.slots if slot.message == 0][-1] == "rset"


@pytest.mark.parametrize(
    ("is_lmtp", "is_over"), [pytest.param(False, False, id="smtp"), pytest.param(True, True, id="lmtp")]
)
def test_354_after_all_was_refused(is_lmtp: bool, is_over: bool) -> None:
    """By SMTP a lone dot answers it; by LMTP no one could say how many replies that has."""
    talk = Talk(Mode.PIPELINING, [2, 1], is_lmtp=is_lmtp)
    talk.serve({"rcpt a0@example.com": NO, "rcpt b0@example.com": LATER, "data 0": GO, "end 0": BAD})
    assert talk.outcomes()[0] == ["rejected", "deferred"]
    assert talk.outcomes()[1] == ["?" if is_over else "accepted"]
    assert (talk.protocol.closed is not None) == is_over


@every_way
def test_mark_is_wanted_once_for_all(mode: Mode, is_lmtp: bool) -> None:
    talk = Talk(mode, [3], is_lmtp=is_lmtp, grants_marks=False)
    talk.serve({"rcpt a0@example.com": NO})
    assert talk.held == talk.transfers
    assert talk.transfers[0].stage is not Stage.END
    talk.held[0].is_marked = True
    talk.writes()
    assert talk.transfers[0].stage is Stage.END
    talk.protocol.lost()
    assert talk.outcomes() == [["rejected", "in_doubt", "in_doubt"]]


@every_mode
def test_421_to_a_recipient_defers_the_others_and_ends_the_session(mode: Mode) -> None:
    talk = Talk(mode, [3, 1])
    talk.serve({"rcpt a0@example.com": NO, "rcpt b0@example.com": b"421 4.3.2 closing\r\n"}, most=4)
    talk.protocol.lost()
    assert talk.outcomes()[0] == ["rejected", "deferred", "deferred"]
    assert talk.protocol.closed is not None
    assert talk.protocol.closed.words == "mail.example.com ended the session: 421 4.3.2 closing"


def test_replies_behind_a_421_keep_their_places() -> None:
    """The rest of the message that got it is answered, too, by a server that reads on: no reply moves up."""
    talk = Talk(Mode.DEEP, [1, 1, 1], depth=4, window=4)
    talk.serve({"rcpt a0@example.com": b"421 4.3.2 closing\r\n", "end 0": OK, "end 1": NO, "end 2": OK})
    talk.protocol.lost()
    assert talk.outcomes() == [["accepted"], ["rejected"], ["accepted"]]


@pytest.mark.parametrize("early", [b"552 5.3.4 too big\r\n", b"421 4.3.2 closing\r\n"], ids=["552", "421"])
@pytest.mark.parametrize("is_lmtp", [False, True], ids=["smtp", "lmtp"])
def test_refusal_in_the_middle_of_the_content_decides_those_who_were_left(early: bytes, is_lmtp: bool) -> None:
    talk = Talk(Mode.PIPELINING, [3], is_lmtp=is_lmtp, grants_marks=False)
    talk.serve({"rcpt a0@example.com": LATER})
    talk.protocol.receive(early)
    assert talk.protocol.closed is not None
    transfer = talk.transfers[0]
    events = [transfer.own.get(n, transfer.result) for n in range(3)]
    assert [(event.stage, event.code) for event in events if isinstance(event, Reply)] == [
        (Stage.RCPT, 451),
        (Stage.BODY, int(early[:3])),
        (Stage.BODY, int(early[:3])),
    ]


# --- any server ------------------------------------------------------------------------------------------------------

_WAY = st.sampled_from(WAYS)
_RECIPIENTS = st.lists(st.integers(1, 4), min_size=1, max_size=6)
_REPLY = st.sampled_from(
    [OK] * 8 + [GO] * 3 + [NO, NO, LATER, BAD, b"421 4.3.2 z\r\n", b"250-a\r\n250 b\r\n", b"452 4.5.3 many\r\n"]
)


@pytest.mark.slow
@many
@given(_WAY, _RECIPIENTS, st.lists(_REPLY, max_size=80), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_no_one_gets_the_reply_of_another(
    way: tuple[Mode, bool], recipients: list[int], replies: list[bytes], cuts: list[int]
) -> None:
    """Against a reading of the wire of its own: accepted is who was named, taken, and granted in his own place."""
    mode, is_lmtp = way
    talk = Talk(mode, recipients, is_lmtp=is_lmtp)
    stream = b"".join(replies)
    said, heard = b"", 0
    for number in count():
        if len(said) == len(stream):
            break
        piece = stream[len(said) :][: cuts[number % len(cuts)]]
        said += piece
        whole = [line for line in said.split(b"\r\n")[:-1] if line[3:4] == b" "]
        for line in whole[heard:]:
            talk.server.says(line)
        heard = len(whole)
        talk.protocol.receive(piece)
        talk.writes()
    talk.protocol.lost()
    check_outcomes(talk)


def check_outcomes(talk: Talk) -> None:
    answered = talk.server.answered()
    said_421 = any(code == 421 for code in talk.server.codes)
    for number, transfer in enumerate(talk.transfers):
        if transfer in talk.waiting:
            assert transfer.result is None
            continue
        named = {slot.path: code for slot, code in answered if slot.message == number and slot.step == "rcpt"}
        ends = {slot.path: code for slot, code in answered if slot.message == number and slot.step == "end"}
        for index, path in enumerate(transfer.paths):
            assert transfer.result is not None
            event = transfer.own.get(index, transfer.result)
            outcome = judge(event).outcome
            end = ends.get(path if talk.server.is_lmtp else "")
            was_taken = named.get(path, 999) < 300
            if outcome is Outcome.ACCEPTED:
                assert end is not None and end < 300
                assert was_taken or not any(code < 300 for code in named.values())
                assert transfer.is_marked
            if outcome is Outcome.IN_DOUBT:
                assert number in talk.server.ended and transfer.is_marked
            if number in talk.server.ended and was_taken and end is None and not isinstance(event, Reply):
                assert outcome is Outcome.IN_DOUBT or said_421


@pytest.mark.slow
@many
@given(
    _WAY,
    _RECIPIENTS,
    st.lists(_REPLY | st.binary(max_size=20) | st.sampled_from([b"2", b"5\n", b"250-", b"\r\n"]), max_size=60),
    st.data(),
)
def test_any_bytes_lead_to_one_honest_outcome_each(
    way: tuple[Mode, bool], recipients: list[int], pieces: list[bytes], data: st.DataObject
) -> None:
    """No exception, no one accepted before the end was written and marked, each message decided once."""
    mode, is_lmtp = way
    talk = Talk(mode, recipients, is_lmtp=is_lmtp, grants_marks=False)
    for piece in pieces:
        talk.writes()
        if talk.held and data.draw(st.booleans()):
            talk.held.pop(0).is_marked = True
            talk.writes()
        ended = [transfer.stage is Stage.END for transfer in talk.transfers]
        before = len(talk.protocol.settled)
        talk.protocol.receive(piece)
        for transfer in talk.protocol.settled[before:]:
            for number in range(len(transfer.paths)):
                if word(transfer.own.get(number, transfer.result)) == "accepted":
                    assert ended[talk.transfers.index(transfer)] and transfer.is_marked
    talk.protocol.lost()
    begun = [transfer for transfer in talk.transfers if transfer not in talk.waiting]
    assert sorted(map(id, talk.protocol.settled)) == sorted(map(id, begun))
    for transfer in begun:
        for number in range(len(transfer.paths)):
            event = transfer.own.get(number, transfer.result)
            assert event is not None and not has_control(str(event))
            if judge(event).outcome is Outcome.IN_DOUBT:
                assert transfer.stage is Stage.END
    assert talk.protocol.closed is not None and talk.protocol.closed.words
