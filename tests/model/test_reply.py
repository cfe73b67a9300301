"""Replies: their class, their enhanced code, and text that can do no harm."""

from __future__ import annotations

import json
import sqlite3
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.model.outcome import Breakage, Fault, Reply, Stage, make_reply
from bulkmail.text import LONGEST_TEXT, printable


@pytest.mark.parametrize(
    ("code", "is_positive", "is_intermediate", "is_transient", "is_permanent"),
    [
        (199, False, False, False, False),
        (200, True, False, False, False),
        (299, True, False, False, False),
        (300, False, True, False, False),
        (399, False, True, False, False),
        (400, False, False, True, False),
        (499, False, False, True, False),
        (500, False, False, False, True),
        (599, False, False, False, True),
        (600, False, False, False, False),
    ],
)
def test_reply_is_judged_by_its_first_digit(
    code: int, is_positive: bool, is_intermediate: bool, is_transient: bool, is_permanent: bool
) -> None:
    reply = Reply(Stage.END, code)
    found = (reply.is_positive, reply.is_intermediate, reply.is_transient, reply.is_permanent)
    assert found == (is_positive, is_intermediate, is_transient, is_permanent)


@pytest.mark.parametrize(
    ("code", "lines", "enhanced", "text"),
    [
        (250, ["2.1.5 ok"], "2.1.5", "ok"),
        (250, ["ok"], "", "ok"),
        (250, [], "", ""),
        (250, ["2.1.5"], "2.1.5", ""),
        (550, ["5.1.10   gone"], "5.1.10", "gone"),
        (550, ["5.1.1 no", "5.1.1 such", "user"], "5.1.1", "no such user"),
        (550, ["no", "5.1.1 such", "5.1.2 user"], "5.1.1", "no such user"),
        (550, ["5.1.1: gone"], "5.1.1", "gone"),
        (550, ["5.1.1, gone"], "5.1.1", "gone"),
        (550, ["5.1.1. Gone"], "5.1.1", "Gone"),
        (550, ["5.1.1<ann@example.org> gone"], "5.1.1", "<ann@example.org> gone"),
        (550, ["5.1.1\tgone"], "5.1.1", "gone"),
        (550, ["4.1.1 gone"], "", "4.1.1 gone"),
        (250, ["5.1.1 gone"], "", "5.1.1 gone"),
        (550, ["5.1.1.7 is listed"], "", "5.1.1.7 is listed"),
        (550, ["5.1.1a"], "", "5.1.1a"),
        (550, ["5.1.1.a"], "", "5.1.1.a"),
        (550, ["5.1 gone"], "", "5.1 gone"),
        (550, ["5.1.1000 gone"], "", "5.1.1000 gone"),
        (550, ["3.1.1 gone"], "", "3.1.1 gone"),
        (350, ["3.1.1 go on"], "", "3.1.1 go on"),
        (550, ["5.١.١ gone"], "", "5.١.١ gone"),
        (550, ["see 5.1.1"], "", "see 5.1.1"),
    ],
)
def test_reply_takes_the_enhanced_code_off_its_lines(code: int, lines: list[str], enhanced: str, text: str) -> None:
    assert make_reply(Stage.RCPT, code, lines) == Reply(Stage.RCPT, code, enhanced, text)


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (Reply(Stage.END, 250, "2.0.0", "queued"), "250 2.0.0 queued"),
        (Reply(Stage.END, 250, "", "queued"), "250 queued"),
        (Reply(Stage.END, 250), "250"),
        (Fault(Stage.END, Breakage.LOST, "the connection ended"), "the connection ended"),
    ],
)
def test_event_shows_itself_in_the_servers_order(event: Reply | Fault, shown: str) -> None:
    assert str(event) == shown


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("queued as 1234", "queued as 1234"),
        ("  two\r\nlines\n", "two lines"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("a\x00b\x7fc\x9bd", "a b c d"),
        ("a\u2028b\u2029c", "a b c"),
        ("\u202egnp.exe\u202c \u2066x\u2069", "gnp.exe x"),
        ("\udcff\ud800", ""),
        ("Empfänger nicht gefunden 収件人", "Empfänger nicht gefunden 収件人"),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 499 + "…"),
    ],
    ids=["plain", "lines", "escape", "controls", "separators", "bidi", "surrogates", "scripts", "full", "over"],
)
def test_printable_leaves_what_can_be_shown(text: str, cleaned: str) -> None:
    assert printable(text) == cleaned


def test_printable_is_cut_where_it_is_reported() -> None:
    assert printable("abcdef", longest=4) == "abc…"
    assert printable("abcd", longest=4) == "abcd"


def test_printable_looks_at_no_more_than_it_needs() -> None:
    assert printable(" " * 16 + "late", longest=4) == ""
    assert printable(" " * 15 + "late", longest=4) == "l"


ANY_TEXT = st.text(st.characters(), max_size=700) | st.binary(max_size=700).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)


@given(ANY_TEXT)
def test_printable_is_safe_to_print_and_to_store(text: str) -> None:
    cleaned = printable(text)
    assert len(cleaned) <= LONGEST_TEXT
    assert len(cleaned.splitlines()) <= 1
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in cleaned)
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert printable(cleaned) == cleaned
    assert json.loads(json.dumps(cleaned)) == cleaned


@given(st.sampled_from(Stage), st.integers(200, 599), st.lists(ANY_TEXT, max_size=4))
def test_reply_is_made_of_anything_a_server_says(stage: Stage, code: int, lines: list[str]) -> None:
    reply = make_reply(stage, code, lines)
    assert (reply.stage, reply.code) == (stage, code)
    assert reply.enhanced == "" or reply.enhanced[0] == str(code)[0]
    assert reply.enhanced.isascii()
    with sqlite3.connect(":memory:") as database:
        assert database.execute("SELECT ?", (str(reply),)).fetchone() == (str(reply),)
    database.close()


def test_stages_come_in_the_order_of_a_session() -> None:
    words = "connect greeting ehlo starttls auth mail rcpt data body end"
    assert " ".join(stage.value for stage in Stage) == words
