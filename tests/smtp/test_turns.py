"""The usual turn is taken at one look; it comes to the same as each reply for itself."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.outcome import Fault, Stage, make_acceptance, make_reply
from bulkmail.smtp.peer_policy import Mode, PeerPolicy, Terms
from bulkmail.smtp.protocol import Protocol
from bulkmail.smtp.replies import Capabilities
from bulkmail.smtp.transaction import NO_WISHES, Transfer, mail_command, plain_envelope, rcpt_command, unsendable

BODY = b"Subject: hello\r\n\r\n.Dear all\r\n"

REPLIES = st.sampled_from(
    [
        *[b"250 2.0.0 Ok: queued as 4F2\r\n"] * 12,
        b"250 ok\r\n",
        b"250-first\r\n250 second\r\n",
        b"251 forwarded\r\n",
        b"450 4.7.1 later\r\n",
        b"550 5.1.1 who?\r\n",
        b"421 4.3.2 bye\r\n",
        b"503 5.5.1 improper pipelining\r\n",
        b"299 odd\r\n",
    ]
)
GO_AHEADS = st.sampled_from(
    [*[b"354 go on\r\n"] * 12, b"354\r\n", b"354-a\r\n354 b\r\n", b"554 5.5.1 no recipients\r\n"]
)


class OneByOne(Protocol):
    """Every reply for itself."""

    matches_turns = False


class Server:
    """Answers what is written with the next replies of a script, and cuts the bytes as told."""

    def __init__(self, replies: list[bytes], go_aheads: list[bytes], cuts: list[int], *, is_lmtp: bool = False) -> None:
        self.replies, self.go_aheads, self.cuts = deque(replies), deque(go_aheads), deque(cuts)
        self.is_lmtp = is_lmtp
        self.accepted = 0  # recipients of this message
        self.is_in_content = False

    def answers(self, written: bytes) -> list[bytes]:
        said = b""
        for line in written.splitlines(keepends=True):
            if self.is_in_content:
                if line == b".\r\n":
                    self.is_in_content = False
                    for _ in range(self.accepted if self.is_lmtp else 1):
                        said += self.reply()
                    self.accepted = 0
            elif line.startswith(b"DATA"):
                answer = self.go_aheads.popleft() if self.go_aheads else b"354 go on\r\n"
                self.is_in_content = answer.startswith(b"354")
                said += answer
            else:
                answer = self.reply()
                self.accepted += line.startswith(b"RCPT") and answer.startswith(b"2")
                said += answer
        pieces = []
        while said:
            size = self.cuts.popleft() if self.cuts else len(said)
            pieces.append(said[:size])
            said = said[size:]
        return pieces

    def reply(self) -> bytes:
        return self.replies.popleft() if self.replies else b"250 ok\r\n"


def conversation(
    kind: type[Protocol],
    server: Server,
    *,
    copies: list[int],
    late: list[bool],
    is_checked: bool,
) -> list[object]:
    """What is written and what each message comes to: one for each number of `copies`.

    Each time that `late` says so, the next message is not there yet when it is asked for.
    """
    protocol = kind(
        Terms(Capabilities(size_limit=0), Mode.PIPELINING, is_lmtp=server.is_lmtp),
        PeerPolicy(),
        peer="mail.example.com",
    )
    transfers = [
        Transfer(
            Message(
                Envelope("s@example.org", f"p{n}@example.com", tuple(f"c{k}@example.com" for k in range(more))),
                f"<{n}@example.org>",
                (BODY,),
            )
        )
        for n, more in enumerate(copies)
    ]
    waiting = deque(transfers)
    delays = deque(late)

    def more() -> Transfer | None:
        if delays and delays.popleft():
            return None
        transfer = waiting.popleft() if waiting else None
        if transfer is not None and is_checked:
            assert protocol.check(transfer) is None
        return transfer

    protocol.more = more
    log = b""
    while True:
        written, left = b"", len(delays)
        while (output := protocol.next_output()) is not None:
            written += bytes(output)
            if (wanting := protocol.mark_wanted) is not None:
                protocol.mark_wanted = None
                wanting.is_marked = True
        log += written
        pieces = server.answers(written)
        if not pieces and len(delays) == left:  # nothing is said any more, and nothing was late
            break
        for piece in pieces:
            protocol.receive(piece)
    return [log, protocol.closed is not None, protocol.begun, protocol.refusals, *[e.result for e in transfers]]


@pytest.mark.slow
@given(
    st.lists(REPLIES, max_size=30),
    st.lists(GO_AHEADS, max_size=8),
    st.lists(st.integers(1, 120), max_size=20),
    st.lists(st.sampled_from([0, 0, 0, 1, 2]), max_size=8),
    st.lists(st.booleans(), max_size=12),
    st.booleans(),
)
@example([], [], [], [0, 1], [False, True, True], False)
@example([], [], [], [0, 1, 0, 2], [False, True, True, False, True, True], True)
def test_turn_comes_to_the_same_as_each_reply_for_itself(
    replies: list[bytes], go_aheads: list[bytes], cuts: list[int], copies: list[int], late: list[bool], is_lmtp: bool
) -> None:
    taken = conversation(
        Protocol, Server(replies, go_aheads, cuts, is_lmtp=is_lmtp), copies=copies, late=late, is_checked=True
    )
    one_by_one = conversation(
        OneByOne, Server(replies, go_aheads, [], is_lmtp=is_lmtp), copies=copies, late=late, is_checked=False
    )
    assert taken == one_by_one


@given(
    st.one_of(
        st.binary(max_size=80),
        st.text(st.sampled_from("25 0.:;ab\t\x7fé"), max_size=20).map(str.encode),
        st.integers(490, 510).map(lambda size: b"a" * size),
    )
)
@example(b"2.0.0 Ok: queued as 4F2")
@example(b"2.0.0: Ok")
@example(b"2.0.0 2.1.0 twice")
def test_acceptance_reads_as_any_reply(text: bytes) -> None:
    assert make_acceptance(text) == make_reply(Stage.END, 250, (text.decode("utf-8", "replace"),))


_PATHS = st.one_of(st.just("ann@example.com"), st.text(st.sampled_from('a.@<>" é\r\n\x7f\\'), max_size=8))


@given(_PATHS, _PATHS, st.booleans(), st.booleans(), st.sampled_from([None, 0, 10, 1_000]))
def test_plain_envelope_is_what_the_commands_are(
    reverse: str, forward: str, needs_smtputf8: bool, is_8bit: bool, limit: int | None
) -> None:
    message = Message(Envelope(reverse, forward), "<1@example.org>", (BODY,), needs_smtputf8, is_8bit)
    capabilities = Capabilities(size_limit=limit)
    plain = plain_envelope(message, capabilities, NO_WISHES)
    if plain:
        assert unsendable(message, capabilities) is None
        assert plain == mail_command(message, capabilities) + rcpt_command(forward) + b"DATA\r\n"
    elif forward == reverse == "ann@example.com" and not (needs_smtputf8 or is_8bit):
        assert isinstance(unsendable(message, capabilities), Fault)


def test_turn_does_not_show_what_it_repeats_of_a_login() -> None:
    protocol = Protocol(Terms(Capabilities(), Mode.PIPELINING), PeerPolicy(), peer="mail", secrets=["opensesame"])
    transfer = Transfer(Message(Envelope("s@example.org", "p@example.com"), "<1@example.org>", (BODY,)))
    waiting = iter((transfer,))
    protocol.more = lambda: next(waiting, None)
    assert protocol.check(transfer) is None
    protocol.next_output()
    transfer.is_marked = True
    protocol.receive(b"250 ok\r\n250 ok\r\n354 go\r\n")
    protocol.next_output()
    protocol.receive(b"250 2.0.0 queued for opensesame\r\n")
    assert transfer.result == make_reply(Stage.END, 250, ("2.0.0 queued for ***",))
