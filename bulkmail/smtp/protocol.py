"""Mail transactions as a conversation on paper: messages and bytes in, bytes and decisions out.

No socket, no clock.  Every command written is remembered until its reply comes, in order; a reply that nothing waits
for is never booked to a message.  How far ahead of the replies commands are written is the mode.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from bulkmail.model.reply import Breakage, Fault, Reply, Stage, make_acceptance, make_reply
from bulkmail.smtp.ahead import Ahead, Trial
from bulkmail.smtp.capabilities import Capabilities
from bulkmail.smtp.content import CHUNK_END, TERMINATOR, chunk_pieces, short_content, wire_pieces
from bulkmail.smtp.envelopes import NO_WISHES, Wishes, mail_command, plain_envelope, rcpt_command, unsendable
from bulkmail.smtp.flight import Flight
from bulkmail.smtp.replies import RawReply, ReplyError, ReplyParser
from bulkmail.smtp.transfer import Exchange, Mode, Step

# A server that swallows the chunk of a refused BDAT answers 5xx, then 250 to RSET.  One that does not would take the
# text of a message for commands; it answers 5xx to what is no command in between.
PROBE = b"BDAT 6 LAST\r\nXNOP\r\nRSET\r\n"

_SMALL = 65_536  # bytes; so much is written at once

# Exim ends a session, with 554, at the eleventh command that brings no mail forward (smtp_accept_max_nonmail); only the
# first RSET after an accepted message is free.  Whatever is then under way would have no answer.
_MOST_IDLE_RESETS = 10

# The usual turn, whole or in its two parts: the end of a message is accepted, and the envelope of the next.
_ACCEPTED = rb"250 ([^\r\n]*)\r\n"
_GO_AHEAD = rb"250 [^\r\n]*\r\n250 [^\r\n]*\r\n354[ ][^\r\n]*\r\n"
_is_turn = re.compile(_ACCEPTED + _GO_AHEAD).fullmatch
_is_accepted = re.compile(_ACCEPTED).fullmatch
_is_go_ahead = re.compile(_GO_AHEAD).fullmatch

_RESET = ((Step.RSET, b"RSET\r\n"),)
_LAST = ((Step.DATA, b"DATA\r\n"),)

# A member looked up by its class takes CPython 3.11 ten times as long as a name of this module.
_PROBE, _FENCE, _RSET, _MAIL, _RCPT, _DATA, _BODY, _END, _EMPTY, _QUIT = Step
_PLAIN, _PIPELINING, _CHUNKING, _DEEP = Mode
_AT_MAIL, _AT_BODY, _AT_END = Stage.MAIL, Stage.BODY, Stage.END


class Transactions(Flight):
    """The transactions of one session, in the order begun.

    Anyone who owns the transport gives it messages through `more`, which is called at the moment that the next envelope
    could be written and may return None; tells what happens (`receive`, `marked`, `lost` …); then writes what
    `next_output` gives until that is None or writing is paused; then looks at three answers:

    `mark_wanted`: the envelope of this exchange is written, and its terminator waits for `marked`.  The owner sets it
    back to None.  `settled`: exchanges that have a result; the owner clears it.  `is_over`: nothing more may be
    written, and `goodbye` says why.
    """

    def __init__(
        self,
        capabilities: Capabilities,
        *,
        peer: str,
        mode: Mode = _PLAIN,
        depth: int = 1,
        wishes: Wishes = NO_WISHES,
        is_lmtp: bool = False,
        ahead: Ahead | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        """`depth` is the most messages under way in DEEP mode, which is entered only after a probe has gone well.

        Until then it is PIPELINING; the session that probes does so after its first message.  `ahead` is what the
        sessions of a relay share.

        `is_lmtp`: the end of a message gets a reply for each recipient (RFC 2033).  By LMTP, `mode` is not chunked: how
        many replies a refused chunk gets there, no RFC says.  `secrets` are what no reply may be shown to repeat.
        """
        super().__init__(peer=peer, depth=depth, is_lmtp=is_lmtp, ahead=ahead or Ahead())
        self.more: Callable[[], Exchange | None] = lambda: None
        self.mark_wanted: Exchange | None = None
        self.has_left = False  # over because both sides said goodbye
        self.refused_dsn = ""  # in these words, although it had offered DSN
        self.is_used_up = False  # has seen as many refusals as any server tolerates: to be left for another
        self._wants_deep = mode is _DEEP and not self._ahead.may_go_deep(capabilities)
        self._has_carried = False  # a message that was accepted
        self.mode: Mode = _PIPELINING if self._wants_deep else mode
        self._capabilities = capabilities
        self._wishes = wishes
        self._parser = ReplyParser(secrets)
        self._secrets = tuple(secret.encode("utf-8", "replace") for secret in secrets if secret)
        self._idle_resets = 0  # answered, with no message accepted since the one before
        self._was_reset = True  # since the last message was accepted
        self._is_leaving = False
        self._is_in_step = False  # what is expected is a usual turn, or a part of one

    # What goes in.

    def check(self, exchange: Exchange) -> Fault | None:
        """Why this message cannot go over this session at all; None for one that may be begun."""
        exchange.envelope = plain_envelope(exchange.message, self._capabilities, self._wishes)
        return None if exchange.envelope else unsendable(exchange.message, self._capabilities)

    def leave(self) -> None:
        """Says QUIT after the last message."""
        self._is_leaving = True

    def marked(self, exchange: Exchange) -> None:
        """The mark of this exchange is durable: its terminator may be written."""
        exchange.is_marked = True

    def receive(self, data: bytes) -> None:
        """Takes bytes from the server and acts on every reply that they complete.  Never raises."""
        if self._is_in_step and self._take_turn(data):
            self._is_in_step = bool(self._expected)  # the second of two parts
            return
        self._is_in_step = False
        try:
            for reply in self._parser.replies(data):
                if self.is_over:
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

    def _take_turn(self, data: bytes) -> bool:
        """As `_on_reply()` for each of the plain yeses of a usual turn, if `data` is one; else nothing is done.

        Nearly every message of nearly every run goes this way.  What is in step is the end of a message to recipients
        who were all accepted, or the envelope of a message to one, or first the one and then the other.
        """
        expected = self._expected
        number = len(expected)
        if self.is_over:
            return False
        words = None
        if number == 4 and (found := _is_turn(data)) is not None:
            words, number = found[1], 3
            ending = expected[0][1]
            following = expected[1][1]
            expected.clear()
        elif number == 3:
            if _is_go_ahead(data) is None:
                return False
            following = expected[0][1]
            expected.clear()
        elif (found := _is_accepted(data)) is not None:
            words = found[1]
            ending = expected.popleft()[1]
            following = None
        else:
            return False
        self._has_answered = True
        if following is not None:
            following.answered = following.accepted = 1
            following.may_go_on = True
            following.stage = _AT_BODY
        if words is not None and ending is not None:
            self._was_reset, self._has_carried = False, True
            if self._secrets and any(map(words.__contains__, self._secrets)):
                words = self._parser.cleaned(words)
            self._decide(ending, make_acceptance(words))
        return True

    # What goes out.

    def next_output(self) -> bytes | memoryview | None:
        """What to write now, at most about 64 KB; None while it is not our turn.

        To be called only when the bytes are handed to the transport at once, and not while writing is paused: the
        terminator comes out of here too, and once it does the message may be delivered.
        """
        if self.is_over or self._last_words:
            return None
        exchange = self._writing
        if exchange is not None and exchange.result is not None and exchange.pieces is None:
            exchange = self._writing = None  # refused before its content
        if exchange is None:
            return self._begin()
        if exchange.to_write:
            return None if self._expected else self._envelope(exchange)  # PLAIN: one by one
        if exchange.pieces is None:
            if not exchange.may_go_on:
                return None
            exchange.stage = _AT_BODY
            if exchange.is_marked and self.mode is _PIPELINING and exchange.refusal is None:
                content = short_content(exchange.message.buffers)
                if content is not None:
                    exchange.is_written = True
                    return content + (self._terminator(exchange) or b"")
            exchange.pieces = self._content(exchange)
        piece = next(exchange.pieces, None)
        if piece is None:
            exchange.is_written = True
            return self._terminator(exchange)
        if self.mode is _PLAIN or not exchange.is_marked or len(piece) > _SMALL // 2:
            return piece
        following = next(exchange.pieces, None)
        if following is not None:
            exchange.pieces = chain((following,), exchange.pieces)
            return piece
        exchange.is_written = True
        return bytes(piece) + (self._terminator(exchange) or b"")  # a short message in one write

    def _begin(self) -> bytes | None:
        """The envelope of another message, if one may be begun and there is one."""
        if len(self._flight) >= self._limit() or (self._expected and not self._flight):
            return None
        may_change = self._wants_deep and self._ahead.trial in (Trial.UNTRIED, Trial.PASSED)
        if may_change and self._flight:  # only between two messages
            return None
        if self._waiting:
            exchange: Exchange | None = self._waiting.popleft()
        else:
            exchange = None if self._is_leaving and self._flight else self.more()
        if exchange is None:
            return self._quit() if self._is_leaving and not self._flight else None
        if may_change and self._has_carried:
            self._wants_deep = False
            if self._ahead.trial is Trial.UNTRIED:
                self._waiting.appendleft(exchange)
                return self._probe()
            if self._ahead.may_go_deep(self._capabilities):
                self._go_deep()
        # RFC 3030 leaves open what becomes of a transaction whose chunk was refused; RFC 5321 does not for DATA.
        is_certain = not (self._is_open or (self.mode.is_chunked and self._flight))
        self.begun += 1
        if exchange.envelope and is_certain and self.mode is _PIPELINING:
            exchange.is_ahead = bool(self._flight)
            self._flight.append(exchange)
            self._writing = exchange
            exchange.is_mark_asked = True
            self.mark_wanted = exchange
            self._is_in_step = not self._expected
            self._expected += ((_MAIL, exchange), (_RCPT, exchange), (_DATA, exchange))
            return exchange.envelope
        exchange.to_write = (
            *(() if is_certain else _RESET),
            (_MAIL, mail_command(exchange.message, self._capabilities, self._wishes)),
            *[(_RCPT, rcpt_command(path, self._wishes.dsn)) for path in exchange.paths],
            *(() if self.mode.is_chunked else _LAST),
        )
        exchange.is_ahead = bool(self._flight)
        exchange.may_go_on = self.mode is _DEEP
        self._is_open = self._is_in_step = False
        self._flight.append(exchange)
        self._writing = exchange
        envelope = self._envelope(exchange)
        if self.mode is not _DEEP or exchange.message.size_bytes > _SMALL:
            return envelope
        content = self.next_output()
        return envelope if content is None else envelope + bytes(content)

    def _probe(self) -> bytes:
        self._ahead.trial, self._is_probing = Trial.UNDER_WAY, True
        self._expected += [(_PROBE, None), (_FENCE, None)]
        return PROBE

    def _go_deep(self) -> None:
        self.mode = _DEEP
        self.window, self._clean = 1, 0

    def _limit(self) -> int:
        """How many messages may be under way."""
        if not self._ahead.crosses_ends:
            return 1
        if self.mode is not _DEEP:
            return 1 if self.mode is _PLAIN else 2
        if not self._idle_resets:
            return self.window
        return max(1, min(self.window, _MOST_IDLE_RESETS - self._idle_resets))  # every one of them may be refused

    def _envelope(self, exchange: Exchange) -> bytes:
        """The commands to be written next: all, or the first one in PLAIN mode."""
        commands, exchange.to_write = exchange.to_write, ()
        if self.mode is _PLAIN:
            exchange.stage = commands[0][0].stage
            commands, exchange.to_write = commands[:1], commands[1:]
        if not exchange.to_write and not exchange.is_mark_asked:
            exchange.is_mark_asked = True
            self.mark_wanted = exchange
        raw = b""
        for step, command in commands:
            self._expected.append((step, exchange))
            raw += command
        return raw

    def _content(self, exchange: Exchange) -> Iterator[bytes | memoryview]:
        if not self.mode.is_chunked:
            return wire_pieces(exchange.message.buffers)
        # The chunk may be refused as soon as its size is known.
        self._expected.append((_END, exchange))
        return chunk_pieces(exchange.message)

    def _terminator(self, exchange: Exchange) -> bytes | None:
        """The bytes that end the message, and with them, in the same write, the next envelope."""
        is_void = exchange.result is not None or exchange.is_void
        if not is_void and not exchange.is_marked:
            return None
        self._writing = None
        if self.mode.is_chunked:
            ending = CHUNK_END
        else:
            ending = TERMINATOR
            step = _EMPTY if is_void else _END
            if self._is_lmtp:  # a reply for each recipient
                self._expected += [(step, exchange)] * exchange.accepted
            else:
                self._expected.append((step, exchange))
        if not is_void:
            exchange.stage = _AT_END
        if self.mode is _PLAIN or exchange.refusal is not None:
            return ending
        is_plain = self.mode is _PIPELINING and len(self._expected) == 1 and not is_void
        following = self._begin()
        if following is None:
            self._is_in_step = is_plain
            return ending
        self._is_in_step = is_plain and len(self._expected) == 4
        return ending + following

    def _quit(self) -> bytes:
        self._is_leaving = False
        self._expected.append((_QUIT, None))
        return b"QUIT\r\n"

    # What a reply means.

    def _on_reply(self, reply: RawReply) -> None:
        self._has_answered = True
        self._goes_on = self._has_refused_reset
        step, exchange = self._expected.popleft()
        if exchange is None:
            self._on_our_own(step, reply)
        elif reply.code == 421:
            self._on_goodbye(exchange, step, reply)
        elif step is _END:
            self._on_end(exchange, reply)
        elif step is _EMPTY:
            self._decide(exchange, exchange.refusal)  # whatever it said to nothing
        elif step is _RSET and reply.code < 300:
            self._idle_resets += self._was_reset
            self._was_reset = True
            self.is_used_up = self._idle_resets >= _MOST_IDLE_RESETS
        elif step is _RCPT and (reply.code < 300 or reply.code >= 400):
            self._on_recipient(exchange, reply)
        elif reply.code >= 400:
            self._on_refusal(step, exchange, reply)
        elif step is _DATA and reply.code == 354:
            self._on_go_ahead(exchange)
        elif reply.code >= 300 or step is _DATA:
            self._break(f"answered {step.words} with {reply.code}")

    def _on_our_own(self, step: Step, reply: RawReply) -> None:
        """A reply to what belongs to no message."""
        if step is _QUIT:
            self.has_left = True
            self._end(Breakage.LOST, f"{self.peer} was told goodbye")
        elif reply.code == 421:
            self._end(Breakage.LOST, f"{self.peer} ended the session: {make_reply(_AT_MAIL, *reply)}")
        elif step is _PROBE and reply.code < 500:
            self._break(f"answered BDAT without a message with {reply.code}")
        elif step is _FENCE and reply.code < 300:
            self._is_probing = False
            if self._ahead.trial is Trial.UNDER_WAY:
                self._ahead.passed(self._capabilities)
                self._go_deep()
        elif step is _FENCE and self._ahead.trial is Trial.UNDER_WAY and reply.code >= 500:
            # It read the chunk as a command.  The answer to RSET is still to come.
            self._ahead.trial = Trial.FAILED
            self._expected.appendleft((_FENCE, None))
        elif step is _FENCE:
            self._break(f"answered RSET with {reply.code}")

    def _on_refusal(self, step: Step, exchange: Exchange, reply: RawReply) -> None:
        if step is _RSET:
            self._on_refused_reset(reply)
            return
        exchange.refuse(self._refusal(step, reply))
        if step is _DATA or self.mode is _PLAIN:
            self._is_open = step is not _MAIL
            self._decide_refused(exchange)

    def _on_recipient(self, exchange: Exchange, reply: RawReply) -> None:
        refusal = None
        if reply.code >= 400:
            refusal = self._refusal(_RCPT, reply)
            self.refusals += not exchange.is_barred
        if not exchange.hear_recipient(refusal):
            return
        if self.mode.is_chunked:
            self._after_envelope(exchange)
        elif self.mode is _PLAIN and exchange.refusal is not None:
            self._is_open = True
            self._decide(exchange, exchange.refusal)

    def _refusal(self, step: Step, reply: RawReply) -> Reply | Fault:
        """What a refusal in the envelope says of the message.  One of what we asked beside says nothing of it."""
        words = make_reply(step.stage, reply.code, reply.lines)
        has_dsn = self._wishes.dsn is not None and step in (_MAIL, _RCPT)
        if has_dsn and (words.code in (504, 555) or (words.code == 501 and words.enhanced == "5.5.4")):
            self.refused_dsn = str(words)
            return Fault(step.stage, Breakage.DESYNC, f"{self.peer} offered DSN and refused it: {words}")
        return words

    def _after_envelope(self, exchange: Exchange) -> None:
        """By BDAT: all replies to the envelope are here."""
        if exchange.refusal is None:
            exchange.may_go_on = True
        elif not exchange.may_go_on:  # nothing of the content was written, nor will be
            self._is_open = True
            self._decide_refused(exchange)

    def _on_go_ahead(self, exchange: Exchange) -> None:
        exchange.may_go_on = True
        if exchange.refusal is None:
            exchange.stage = _AT_BODY
            return
        if exchange.accepted or self._is_lmtp:
            # MAIL was refused and RCPT was not: the end of this would be mail from we do not know whom.  And by LMTP an
            # end without recipients has no replies.
            self._decide(exchange, exchange.refusal)
            whose = "sender" if exchange.accepted else "recipients"
            self._break(f"asked for a message whose {whose} it had refused")
            return
        exchange.pieces = iter(())  # a lone dot

    def _on_end(self, exchange: Exchange, reply: RawReply) -> None:
        if reply.code < 300:
            if exchange.is_void:  # whatever it took, it is for no one
                self._decide(exchange, exchange.refusal)
                return
            if exchange.stage is not _AT_END:
                self._break(f"said {reply.code} before the message was at its end")
                return
            self._was_reset, self._has_carried = False, True
            if not exchange.accepted:  # whatever MAIL and RCPT were answered: it says that it has taken it
                exchange.own.clear()
            self._end_of(exchange, make_reply(_AT_END, reply.code, reply.lines))
        elif reply.code < 400:
            self._break(f"answered the end of the message with {reply.code}")
        elif self._is_lmtp:
            self._end_of(exchange, make_reply(_AT_END, reply.code, reply.lines))
        else:
            self._is_open = self._is_open or self.mode.is_chunked
            words = make_reply(exchange.stage, reply.code, reply.lines)
            if exchange.refusal is not None and reply.code == 503:
                self._decide_refused(exchange)
            else:
                self._decide(exchange, exchange.refusal or words)

    def _on_unsolicited(self, reply: RawReply) -> None:
        exchange = self._writing
        if reply.code == 421 and exchange is None:
            self._end(Breakage.LOST, f"{self.peer} ended the session: {make_reply(_AT_MAIL, *reply)}")
        elif exchange is not None and (reply.code == 421 or (exchange.stage is _AT_BODY and reply.code >= 400)):
            # It has seen enough of the content (too big, spam) and does not wait for the rest.
            self._on_goodbye(exchange, _END, reply)
        else:
            self._break(f"said {reply.code} before it was asked")
