from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.smtp.replies import LONGEST_REPLY, RawReply, ReplyError, ReplyParser


def read(*pieces: bytes) -> list[RawReply]:
    parser = ReplyParser()
    replies = []
    for piece in pieces:
        replies += parser.replies(piece)
    return replies


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(b"250 ok\r\n", [(250, ("ok",))], id="one line"),
        pytest.param(b"250-a\r\n250-b\r\n250 c\r\n", [(250, ("a", "b", "c"))], id="three lines"),
        pytest.param(b"250\r\n", [(250, ("",))], id="code only"),
        pytest.param(b"250 \r\n", [(250, ("",))], id="code and space"),
        pytest.param(b"250-a\n250 b\n", [(250, ("a", "b"))], id="bare LF"),
        pytest.param(b"250-a\r\n\r\n\n250 b\r\n", [(250, ("a", "b"))], id="empty lines inside"),
        pytest.param(b"550-a\r\n554-b\r\n553 c\r\n", [(553, ("a", "b", "c"))], id="mixed codes of one class"),
        pytest.param(b"599 x\r\n", [(599, ("x",))], id="highest code"),
        pytest.param(b"250 a\r\n421 b\r\n", [(250, ("a",)), (421, ("b",))], id="two in a piece"),
        pytest.param(b"550 caf\xe9 \xff\r\n", [(550, ("caf\ufffd \ufffd",))], id="not UTF-8"),
        pytest.param("550 nicht verfügbar\r\n".encode(), [(550, ("nicht verfügbar",))], id="UTF-8"),
        pytest.param(b"250 a\rb\r\n", [(250, ("a\rb",))], id="CR inside stays inside"),
        pytest.param(b"250 beginning", [], id="not finished"),
        pytest.param(b"250-more\r\n", [], id="lines to come"),
    ],
)
def test_parser_reads(sent: bytes, expected: list[tuple[int, tuple[str, ...]]]) -> None:
    assert read(sent) == expected
    assert read(*(bytes((byte,)) for byte in sent)) == expected


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"2_5 ok\r\n", id="underscore that int() takes"),
        pytest.param(b" 25 ok\r\n", id="leading space"),
        pytest.param(b"+25 ok\r\n", id="sign"),
        pytest.param("²50 ok\r\n".encode(), id="digit outside ASCII"),
        pytest.param(b"abc ok\r\n", id="messages"),
        pytest.param(b"25\r\n", id="two digits"),
        pytest.param(b"2500 ok\r\n", id="four digits"),
        pytest.param(b"250x\r\n", id="message after the code"),
        pytest.param(b"150 ok\r\n", id="first digit 1"),
        pytest.param(b"650 ok\r\n", id="first digit 6"),
        pytest.param(b"050 ok\r\n", id="first digit 0"),
        pytest.param(b"\r\n", id="empty line"),
        pytest.param(b"250 a\r\n\r\n", id="empty line behind a reply"),
        pytest.param(b"250-a\r\n550 b\r\n", id="codes of two classes in a reply"),
        pytest.param(b"250-a\r\nnonsense\r\n", id="nonsense in a reply"),
        pytest.param(b"250 " + b"x" * LONGEST_REPLY + b"\r\n", id="line too long"),
        pytest.param(b"250-x\r\n" * (LONGEST_REPLY // 7 + 1), id="too many lines"),
        pytest.param(b"x" * (LONGEST_REPLY + 1), id="no line end"),
    ],
)
def test_parser_refuses(sent: bytes) -> None:
    with pytest.raises(ReplyError):
        read(sent)
    with pytest.raises(ReplyError):
        read(*(sent[start : start + 100] for start in range(0, len(sent), 100)))


def test_parser_takes_a_reply_of_the_longest_size() -> None:
    line = b"250-" + b"x" * 94 + b"\r\n"
    count = LONGEST_REPLY // len(line)
    last = b"250 " + b"x" * (LONGEST_REPLY - count * len(line) - 6) + b"\r\n"
    [reply] = read(line * count + last)
    assert len(reply.lines) == count + 1


def test_parser_counts_each_reply_by_itself() -> None:
    assert len(read(b"250 ok\r\n" * LONGEST_REPLY)) == LONGEST_REPLY


def test_parser_error_is_safe_to_print() -> None:
    with pytest.raises(ReplyError) as caught:
        read(b"\x1b[31mred\x07 \xff\r\n")
    assert str(caught.value).isprintable()


def test_parser_hides_what_no_reply_may_repeat() -> None:
    parser = ReplyParser(["swordfish", "c3dvcmRmaXNo", "short"])
    sent = b"550-no swordfish\r\n550 c3dvcmRmaXNo is short\r\n"
    assert [*parser.replies(sent)] == [(550, ("no ***", "*** is short"))]
    with pytest.raises(ReplyError, match=r'sent "\*\*\*!" where'):
        [*parser.replies(b"swordfish!\r\n")]


def test_parser_knows_what_is_left_over() -> None:
    parser = ReplyParser()
    assert [*parser.replies(b"250 a\r\n")] == [(250, ("a",))]
    assert not parser.has_partial
    assert not [*parser.replies(b"250-b\r\n")]
    assert parser.has_partial


@pytest.mark.slow
@given(
    st.binary(max_size=300) | st.lists(st.sampled_from([b"250-a\r\n", b"250 b\r\n", b"42", b"\n", b"x"])).map(b"".join),
    st.data(),
)
def test_parser_reads_the_same_however_it_is_cut(sent: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=10)))
    pieces = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    assert outcome(*pieces) == outcome(sent)


def outcome(*pieces: bytes) -> list[RawReply] | str:
    try:
        return read(*pieces)
    except ReplyError as error:
        return str(error)
