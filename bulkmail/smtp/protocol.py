"""Mail transactions as a protocol on paper: messages and bytes in, bytes and decisions out.

No socket, no clock.  Every command written is remembered until its reply comes, in order; a reply that nothing waits
for is never booked to a message.  What a reply means is a table, by the step that it answers and its class.  How far
ahead of the replies commands are written is the mode.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from bulkmail.model.outcome import Breakage, Fault, Reply, Stage, make_acceptance, make_reply
from bulkmail.model.quantities import say_duration
from bulkmail.smtp.peer_policy import Closed, CloseReason, DeepWindow, Mode, PeerPolicy, Probing, SessionState, Terms
from bulkmail.smtp.replies import RawReply, ReplyClass, ReplyError, ReplyParser, is_acceptance, is_go_ahead, is_turn
from bulkmail.smtp.transaction import (
    CHUNK_END,
    TERMINATOR,
    Step,
    Transfer,
    chunk_pieces,
    mail_command,
    plain_envelope,
    rcpt_command,
    short_content,
    unsendable,
    wire_pieces,
)

# A server that swallows the chunk of a refused BDAT answers 5xx, then 250 to RSET.  One that does not would take the
# text of a message for commands; it answers 5xx to what is no command in between.
PROBE = b"BDAT 6 LAST\r\nXNOP\r\nRSET\r\n"

_SMALL = 65_536  # bytes; so much is written at once
_NOT_IMPLEMENTED = (500, 502, 504)

# A member looked up by its class takes CPython 3.11 ten times as long as a name of this module.
_PROBE, _FENCE, _RSET, _MAIL, _RCPT, _DATA, _BODY, _END, _EMPTY, _QUIT = Step
_PLAIN, _PIPELINING, _CHUNKING, _DEEP = Mode
_OPEN, _PROBING, _ENDING, _RESET_REFUSED, _GOING_ON, _CLOSED = SessionState
_AT_MAIL, _AT_BODY, _AT_END = Stage.MAIL, Stage.BODY, Stage.END

_RESET = ((_RSET, b"RSET\r\n"),)
_LAST = ((_DATA, b"DATA\r\n"),)


class Protocol:
    """The transactions of one session, in the order begun.

    The owner of the transport supplies messages through `more`, which is called when the next envelope could be written
    and may return None; reports events (`receive`, `lost` …); then writes what `next_output` gives until that is None
    or writing is paused; then looks at four answers:

    `is_in_step`: what is expected is a usual turn, or a part of one, and nothing can be written before it has come.
    `mark_wanted`: the envelope of this transfer is written, and its terminator waits for `is_marked`; the owner sets it
    back to None.  `settled`: transfers that have a result; the owner clears it.  `closed`: how the session
    ended, None while more may be written.

    More attributes and methods than elsewhere: they are the state of one dialogue and the handlers of one table.
    """

    matches_turns = True  # which no message's way depends on: tests try both

    def __init__(self, terms: Terms, policy: PeerPolicy, *, peer: str, secrets: Sequence[str] = ()) -> None:
        """`peer` is what the server is called; `secrets` are what no reply may be shown to repeat.

        DEEP mode is entered only after a probe has gone well, and until then it is PIPELINING.
        """
        self.terms = terms
        self.peer = peer
        self.policy = policy
        self.more: Callable[[], Transfer | None] = lambda: None
        self.mark_wanted: Transfer | None = None
        self.settled: list[Transfer] = []
        self.flight: deque[Transfer] = deque()  # begun and not decided, in order
        self.state = _OPEN
        self.is_in_step = False
        self.closed: Closed | None = None
        self.begun = 0  # messages
        self.refusals = 0  # of recipients, one after the other
        self.window = DeepWindow(self.policy.depth)
        self._wants_deep = terms.mode is _DEEP and not self.policy.may_go_deep(terms.capabilities)
        self.mode: Mode = _PIPELINING if self._wants_deep else terms.mode
        self._parser = ReplyParser(secrets)
        self._has_secrets = bool(secrets)
        self._writing: Transfer | None = None  # begun and not written to its end
        self._waiting: deque[Transfer] = deque()  # given to us, to be begun next
        self._expected: deque[tuple[Step, Transfer | None]] = deque()  # None: a command that belongs to no message
        self._needs_reset = False  # a refused transaction waits at the server for its RSET
        self._has_answered = False
        self._has_carried = False  # a message that was accepted
        self._is_leaving = False  # QUIT follows the last message
        self._last_words = ""  # of a server that ends the session while replies are still to come

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, or waits for its turn."""
        return not (self.flight or self._expected or self._waiting)

    @property
    def is_worn_out(self) -> bool:
        """Whether the server is about to end this session because it has refused too many recipients.

        The reply that ends it would reject a recipient whom the server would have accepted.
        """
        return self.refusals >= self.policy.bearable_refusals or self.window.is_used_up

    @property
    def awaited(self) -> Step | None:
        """What the server has to do next: answer a step, or take more of the BODY.  None if it is not its turn."""
        if self._expected:
            return self._expected[0][0]
        if self._writing is not None and self._writing.stage is _AT_BODY and not self._writing.is_written:
            return _BODY
        return None

    # What goes in.

    def check(self, transfer: Transfer) -> Fault | None:
        """Why this message cannot go over this session at all; None for one that may be begun."""
        transfer.envelope = plain_envelope(transfer.message, self.terms.capabilities, self.terms.wishes)
        return None if transfer.envelope else unsendable(transfer.message, self.terms.capabilities)

    def leave(self) -> None:
        """Says QUIT after the last message."""
        self._is_leaving = True

    def receive(self, data: bytes) -> None:
        """Takes bytes from the server and acts on every reply that they complete.  Never raises."""
        if self.is_in_step and self.matches_turns and self.state is not _CLOSED:
            awaited = len(self._expected)
            found = is_go_ahead(data) if awaited == 3 else is_turn(data) if awaited == 4 else None
            if found is None and awaited != 3:
                found, awaited = is_acceptance(data), 1
            if found is not None:
                self._take_turn(found, awaited)
                return
        self.is_in_step = False
        try:
            for reply in self._parser.replies(data):
                if self.state is _CLOSED:
                    return
                if self._expected:
                    self._on_reply(reply)
                else:
                    self._on_unsolicited(reply)
                if self._last_words and not self._may_learn_more:
                    self.lost()
        except ReplyError as error:
            self._break(str(error))
            return
        # Nothing is written between replies of one piece, so what is left over was sent before it was asked for.
        if not self._expected and self._parser.has_partial:
            self._break("said something before it was asked")

    def _take_turn(self, found: re.Match[bytes], number: int) -> None:
        """As the table does for each of the plain yeses of a usual turn: this `number` of them was `found`.

        Nearly every message of nearly every run goes this way.  What is in step is the end of a message to recipients
        who were all accepted, or the envelope of a message to one, or first the one and then the other.
        """
        expected, self._has_answered = self._expected, True
        if number != 3:
            ending = expected.popleft()[1]
            assert ending is not None  # noqa: S101
            words = self._parser.cleaned(found[1]) if self._has_secrets else found[1]
            self.window.was_reset, self._has_carried, self.refusals = False, True, 0
            self.flight.remove(ending)
            ending.result = make_acceptance(words)
            self.settled.append(ending)
        if number > 1:
            following = expected[0][1]
            assert following is not None  # noqa: S101
            expected.clear()
            following.answered = following.accepted = 1
            following.may_go_on, following.stage = True, _AT_BODY
        self.is_in_step = bool(expected)  # the second of two parts

    # How it ends.

    def lost(self) -> None:
        """The connection has ended, and everything that came over it was received."""
        if self.closed is not None:
            return
        why = CloseReason.LOST
        if self.refusals > 1 and (self.flight or self._last_words):  # one that was idle ended for another reason
            why = CloseReason.DISMISSED
        if self._last_words and self.state is not _GOING_ON:
            # It said that it would take no more and kept to it: what it did not answer it did not take.  Unless it had
            # begun to answer: by LMTP the others of that message may have theirs.
            for transfer in self.flight:
                if transfer.has_no_end:
                    transfer.stage = _AT_MAIL
            self._close(why, f"ended the session: {self._last_words}")
            return
        if len(self._expected) > 1 and not self._has_answered:
            why = CloseReason.UNANSWERED
        if self.mode is not _DEEP and any(each is not None and each.is_ahead for _, each in self._expected):
            self.policy.lost_behind_end(self.peer)
        self._close(why, f"closed the connection {self._where()}")

    def timed_out(self, seconds: float) -> None:
        """The server did not do what is `awaited` within this time."""
        what = "took nothing more of the message"
        if self.awaited is not _BODY:
            what = f"did not answer {self.awaited.words if self.awaited else 'anything'}"
        self._close(CloseReason.TIMED_OUT, f"{what} within {say_duration(seconds)}")

    def stop(self) -> None:
        """We give the session up."""
        if self.closed is None:
            self._close(CloseReason.STOPPED, f"the session with {self.peer} was stopped {self._where()}")

    def _break(self, what: str) -> None:
        self._close(CloseReason.BROKE_PROTOCOL, f"broke the protocol: it {what}")

    def _close(self, why: CloseReason, what: str) -> None:
        """Nothing more is written; what has no result gets its refusal, or a fault at the stage that it had reached."""
        if self.closed is not None:
            return
        kind, words = why.breakage, what if why is CloseReason.STOPPED else f"{self.peer} {what}"
        if self.state is _PROBING:  # whatever ended it: the question is not worth another session
            self.policy.trial = Probing.UNTRIED if why is CloseReason.STOPPED else Probing.FAILED
            why = why if why is CloseReason.STOPPED else CloseReason.PROBED
        self.state, self.closed = _CLOSED, Closed(why, words, self.mode, self.refusals)
        self._expected.clear()
        self._writing = None
        while self.flight:
            transfer = self.flight.popleft()
            was_taken = transfer.stage is _AT_END and transfer.accepted  # by a server that had refused MAIL
            refusal = None if was_taken else transfer.refusal
            transfer.decide(refusal or Fault(transfer.stage, kind, words))
            self.settled.append(transfer)
        while self._waiting:  # nothing of them was said
            transfer = self._waiting.popleft()
            kind = kind if kind is Breakage.STOPPED else Breakage.LOST
            transfer.decide(Fault(_AT_MAIL, kind, words))
            self.settled.append(transfer)

    def _where(self) -> str:
        step = self.awaited
        if step is not None and step is not _BODY:
            return f"before it answered {step.words}"
        return "in the middle of the message" if self.flight else "between two messages"

    @property
    def _may_learn_more(self) -> bool:
        """Whether a reply that is still to come could decide a message."""
        undecided = [transfer for _, transfer in self._expected if transfer is not None and transfer.result is None]
        return any(transfer.refusal is None or transfer.stage is _AT_END for transfer in undecided)

    # What goes out.

    def next_output(self) -> bytes | memoryview | None:
        """What to write now, at most about 64 KB; None while it is not our turn.

        To be called only when the bytes are handed to the transport at once, and not while writing is paused: the
        terminator comes out of here too, and once it does the message may be delivered.
        """
        if self.state is not _OPEN and self.state is not _PROBING:
            return None
        transfer = self._writing
        if transfer is not None and transfer.result is not None and transfer.pieces is None:
            transfer = self._writing = None  # refused before its content
        if transfer is None:
            return self._begin()
        if transfer.to_write:
            return None if self._expected else self._envelope(transfer)  # PLAIN: one by one
        if transfer.pieces is None:
            if not transfer.may_go_on:
                return None
            transfer.stage = _AT_BODY
            is_short = transfer.is_marked and self.mode is _PIPELINING and transfer.refusal is None
            if is_short and (content := short_content(transfer.message.buffers)) is not None:
                transfer.is_written = True
                return content + (self._terminator(transfer) or b"")
            transfer.pieces = self._content(transfer)
        piece = next(transfer.pieces, None)
        if piece is None:
            transfer.is_written = True
            return self._terminator(transfer)
        if self.mode is _PLAIN or not transfer.is_marked or len(piece) > _SMALL // 2:
            return piece
        following = next(transfer.pieces, None)
        if following is not None:
            transfer.pieces = chain((following,), transfer.pieces)
            return piece
        transfer.is_written = True
        return bytes(piece) + (self._terminator(transfer) or b"")  # a short message in one write

    def _begin(self) -> bytes | None:
        """The envelope of another message, if one may be begun and there is one."""
        if len(self.flight) >= self._limit() or (self._expected and not self.flight):
            return None
        may_change = self._wants_deep and self.policy.trial in (Probing.UNTRIED, Probing.PASSED)
        if may_change and self.flight:  # only between two messages
            return None
        if self._waiting:
            transfer: Transfer | None = self._waiting.popleft()
        else:
            transfer = None if self._is_leaving and self.flight else self.more()
        if transfer is None:
            if self.flight or not self._is_leaving:
                return None
            self._is_leaving = False
            self._expected.append((_QUIT, None))
            return b"QUIT\r\n"
        if may_change and self._has_carried:
            self._wants_deep = False
            if self.policy.trial is Probing.UNTRIED:
                self._waiting.appendleft(transfer)
                self.policy.trial, self.state = Probing.UNDER_WAY, _PROBING
                self._expected += [(_PROBE, None), (_FENCE, None)]
                return PROBE
            if self.policy.may_go_deep(self.terms.capabilities):
                self.mode = _DEEP
        # RFC 3030 leaves open what becomes of a transaction whose chunk was refused; RFC 5321 does not for DATA.
        is_certain = not (self._needs_reset or (self.mode.is_chunked and self.flight))
        self.begun += 1
        transfer.is_ahead = bool(self.flight)
        self.flight.append(transfer)
        self._writing = transfer
        if transfer.envelope and is_certain and self.mode is _PIPELINING:
            transfer.is_mark_asked = True
            self.mark_wanted = transfer
            self.is_in_step = not self._expected
            self._expected += ((_MAIL, transfer), (_RCPT, transfer), (_DATA, transfer))
            return transfer.envelope
        terms = self.terms
        transfer.to_write = (
            *(() if is_certain else _RESET),
            (_MAIL, mail_command(transfer.message, terms.capabilities, terms.wishes)),
            *[(_RCPT, rcpt_command(path, terms.wishes.dsn)) for path in transfer.paths],
            *(() if self.mode.is_chunked else _LAST),
        )
        transfer.may_go_on = self.mode is _DEEP
        self._needs_reset = self.is_in_step = False
        envelope = self._envelope(transfer)
        if self.mode is not _DEEP or transfer.message.size_bytes > _SMALL:
            return envelope
        content = self.next_output()
        return envelope if content is None else envelope + bytes(content)

    def _limit(self) -> int:
        """How many messages may be under way."""
        if not self.policy.crosses_ends or self.mode is _PLAIN:
            return 1
        return self.window.limit if self.mode is _DEEP else 2

    def _envelope(self, transfer: Transfer) -> bytes:
        """The commands to be written next: all, or the first one in PLAIN mode."""
        commands, transfer.to_write = transfer.to_write, ()
        if self.mode is _PLAIN:
            transfer.stage = commands[0][0].stage
            commands, transfer.to_write = commands[:1], commands[1:]
        if not transfer.to_write and not transfer.is_mark_asked:
            transfer.is_mark_asked = True
            self.mark_wanted = transfer
        self._expected += ((step, transfer) for step, _ in commands)
        return b"".join(command for _, command in commands)

    def _content(self, transfer: Transfer) -> Iterator[bytes | memoryview]:
        if not self.mode.is_chunked:
            return wire_pieces(transfer.message.buffers)
        # The chunk may be refused as soon as its size is known.
        self._expected.append((_END, transfer))
        return chunk_pieces(transfer.message)

    def _terminator(self, transfer: Transfer) -> bytes | None:
        """The bytes that end the message, and with them, in the same write, the next envelope."""
        is_void = transfer.result is not None or (transfer.refusal is not None and transfer.is_void)
        if not is_void and not transfer.is_marked:
            return None
        self._writing = None
        if self.mode.is_chunked:
            ending = CHUNK_END
        else:
            ending = TERMINATOR
            answers = transfer.accepted if self.terms.is_lmtp else 1  # by LMTP a reply for each recipient
            self._expected += ((_EMPTY if is_void else _END, transfer),) * answers
        if not is_void:
            transfer.stage = _AT_END
        if self.mode is _PLAIN or transfer.refusal is not None:
            return ending
        is_plain = self.mode is _PIPELINING and len(self._expected) == 1 and not is_void
        following = self._begin()
        if following is None:
            self.is_in_step = is_plain
            return ending
        self.is_in_step = is_plain and len(self._expected) == 4
        return ending + following

    # What a reply means.

    def _on_reply(self, reply: RawReply) -> None:
        self._has_answered = True
        if self.state is _RESET_REFUSED:
            self.state = _GOING_ON
        step, transfer = self._expected.popleft()
        handler = _HANDLERS[step, reply.kind]
        if handler is None:
            self._break(f"answered {step.words} with {reply.code}")
        else:
            handler(self, step, transfer, reply)

    def _on_unsolicited(self, reply: RawReply) -> None:
        transfer = self._writing
        if reply.code == 421 and transfer is None:
            self._on_closing(_MAIL, None, reply)
        elif transfer is not None and (reply.code == 421 or (transfer.stage is _AT_BODY and reply.code >= 400)):
            # It has seen enough of the content (too big, spam) and does not wait for the rest.
            self._on_last_words(_END, transfer, reply)
        else:
            self._break(f"said {reply.code} before it was asked")

    def _on_goodbye(self, step: Step, transfer: None, reply: RawReply) -> None:
        self._close(CloseReason.GOODBYE, "ended the session after QUIT")

    def _on_closing(self, step: Step, transfer: None, reply: RawReply) -> None:
        """421 while nothing of ours is under way."""
        self._close(CloseReason.LOST, f"ended the session: {make_reply(_AT_MAIL, *reply)}")

    def _on_last_words(self, step: Step, transfer: Transfer, reply: RawReply) -> None:
        """The server ends the session.  It refuses the message; replies to what was written may still come."""
        stage = transfer.stage if step in (_END, _EMPTY) else step.stage
        words = make_reply(stage, reply.code, reply.lines)
        self._last_words = str(words)
        self.state = self.state if self.state is _GOING_ON else _ENDING
        self._writing = None
        if step is _END and self.terms.is_lmtp and stage is _AT_END:
            self._hear_end(transfer, words)
        elif step in (_END, _EMPTY):
            self._decide(transfer, transfer.refusal or words)
        else:
            if step is _RCPT:
                transfer.hear_recipient(words)
            transfer.refuse(words)

    def _go_on(self, step: Step, transfer: Transfer | None, reply: RawReply) -> None:
        """As it should be: what follows decides."""

    def _on_fence(self, step: Step, transfer: None, reply: RawReply) -> None:
        self.state = _OPEN
        if self.policy.trial is Probing.UNDER_WAY:
            self.policy.passed(self.terms.capabilities)
            self.mode = _DEEP

    def _on_refused_fence(self, step: Step, transfer: None, reply: RawReply) -> None:
        if self.policy.trial is not Probing.UNDER_WAY:
            self._break(f"answered {step.words} with {reply.code}")
            return
        # It read the chunk as a command.  The answer to RSET is still to come.
        self.policy.trial = Probing.FAILED
        self._expected.appendleft((_FENCE, None))

    def _on_reset(self, step: Step, transfer: Transfer, reply: RawReply) -> None:
        self.window.reset()

    def _on_refused_reset(self, step: Step, transfer: Transfer, reply: RawReply) -> None:
        """What is open there would be mixed into the next message: nothing more is written."""
        if self.state is not _GOING_ON:
            self.state = _RESET_REFUSED
        words = make_reply(_AT_MAIL, *reply)
        if reply.code in _NOT_IMPLEMENTED:
            self._break(f"answered RSET with {reply.code}")
            return
        self._last_words = str(words)
        writing, self._writing = self._writing, None
        if writing is not None:  # a message that was not written to its end gets no reply
            writing.refuse(Fault(_AT_MAIL, Breakage.LOST, f"{self.peer} ended the session: {words}"))

    def _on_refusal(self, step: Step, transfer: Transfer, reply: RawReply) -> None:
        transfer.refuse(self._refusal(step, reply))
        if step is _DATA or self.mode is _PLAIN:
            self._needs_reset = step is not _MAIL
            self._decide_refused(transfer)

    def _on_recipient(self, step: Step, transfer: Transfer, reply: RawReply) -> None:
        refusal = None
        if reply.code >= 400:
            refusal = self._refusal(_RCPT, reply)
            self.refusals += not transfer.is_barred
        if not transfer.hear_recipient(refusal):
            return
        if self.mode.is_chunked:  # all replies to the envelope are here
            if transfer.refusal is None:
                transfer.may_go_on = True
            elif not transfer.may_go_on:  # nothing of the content was written, nor will be
                self._needs_reset = True
                self._decide_refused(transfer)
        elif self.mode is _PLAIN and transfer.refusal is not None:
            self._needs_reset = True
            self._decide(transfer, transfer.refusal)

    def _on_go_ahead(self, step: Step, transfer: Transfer, reply: RawReply) -> None:
        if reply.code != 354:
            self._break(f"answered {step.words} with {reply.code}")
            return
        transfer.may_go_on = True
        if transfer.refusal is None:
            transfer.stage = _AT_BODY
            return
        if transfer.accepted or self.terms.is_lmtp:
            # MAIL was refused and RCPT was not: the end of this would be mail from we do not know whom.  And by LMTP an
            # end without recipients has no replies.
            self._decide(transfer, transfer.refusal)
            whose = "sender" if transfer.accepted else "recipients"
            self._break(f"asked for a message whose {whose} it had refused")
            return
        transfer.pieces = iter(())  # a lone dot

    def _on_end(self, step: Step, transfer: Transfer, reply: RawReply) -> None:
        if transfer.is_void:  # whatever it accepted has no recipients
            self._decide(transfer, transfer.refusal)
            return
        if transfer.stage is not _AT_END:
            self._break(f"said {reply.code} before the message was at its end")
            return
        self.window.was_reset, self._has_carried = False, True
        if not transfer.accepted:  # whatever MAIL and RCPT were answered: it says that it has taken it
            transfer.own.clear()
        self._hear_end(transfer, make_reply(_AT_END, *reply))

    def _on_refused_end(self, step: Step, transfer: Transfer, reply: RawReply) -> None:
        if self.terms.is_lmtp:
            self._hear_end(transfer, make_reply(_AT_END, *reply))
            return
        self._needs_reset = self._needs_reset or self.mode.is_chunked
        if transfer.refusal is not None and reply.code == 503:
            self._decide_refused(transfer)
        else:
            self._decide(transfer, transfer.refusal or make_reply(transfer.stage, *reply))

    def _on_empty(self, step: Step, transfer: Transfer, reply: RawReply) -> None:
        self._decide(transfer, transfer.refusal)  # whatever it said to nothing

    # What a message comes to.

    def _refusal(self, step: Step, reply: RawReply) -> Reply | Fault:
        """What a refusal in the envelope says of the message.  One of what we asked beside says nothing of it."""
        words = make_reply(step.stage, *reply)
        if step is not _DATA and self.terms.wishes.are_refused_by(words):
            self.policy.refused_dsn(self.peer, str(words))
            return Fault(step.stage, Breakage.DESYNC, f"{self.peer} offered DSN and refused it: {words}")
        return words

    def _hear_end(self, transfer: Transfer, words: Reply) -> None:
        """The reply to the end of a message, or by LMTP to that of one of its recipients."""
        if not self.terms.is_lmtp or transfer.hear_end(words):
            self._decide(transfer, words)

    def _decide(self, transfer: Transfer, result: Reply | Fault | None) -> None:
        assert result is not None  # noqa: S101
        if self.flight[0] is transfer:
            self.flight.popleft()
        else:
            self.flight.remove(transfer)
        if self._writing is transfer and transfer.pieces is None:
            self._writing = None
        transfer.decide(result)
        self.settled.append(transfer)
        if self.refusals and isinstance(result, Reply) and result.is_positive:
            self.refusals = 0
        if self.mode is _DEEP:
            self.window.decided()

    def _decide_refused(self, transfer: Transfer) -> None:
        """Every reply to its envelope is here, and it was refused; or it was not heard, and goes again in its turn."""
        if not transfer.was_out_of_turn:
            self._decide(transfer, transfer.refusal)
            return
        self.flight.remove(transfer)
        if self._writing is transfer:
            self._writing = None
        self.policy.refused_ahead(self.peer, str(transfer.refusal))
        self._needs_reset = True
        self.begun -= 1
        transfer.begin()
        self._waiting.append(transfer)


_P = Protocol
_TABLE: dict[Step, tuple[Callable[..., None] | None, ...]] = {  # what is None breaks the protocol
    # to:   2xx             3xx              4xx                   5xx                   421
    _PROBE: (None, None, None, _P._go_on, _P._on_closing),
    _FENCE: (_P._on_fence, None, None, _P._on_refused_fence, _P._on_closing),
    _RSET: (_P._on_reset, None, _P._on_refused_reset, _P._on_refused_reset, _P._on_last_words),
    _MAIL: (_P._go_on, None, _P._on_refusal, _P._on_refusal, _P._on_last_words),
    _RCPT: (_P._on_recipient, None, _P._on_recipient, _P._on_recipient, _P._on_last_words),
    _DATA: (None, _P._on_go_ahead, _P._on_refusal, _P._on_refusal, _P._on_last_words),
    _END: (_P._on_end, None, _P._on_refused_end, _P._on_refused_end, _P._on_last_words),
    _EMPTY: (_P._on_empty, _P._on_empty, _P._on_empty, _P._on_empty, _P._on_last_words),
    _QUIT: (_P._on_goodbye,) * 5,
}
_HANDLERS: dict[tuple[Step, ReplyClass], Callable[..., None] | None] = {
    (step, kind): handler for step, row in _TABLE.items() for kind, handler in zip(ReplyClass, row, strict=True)
}
