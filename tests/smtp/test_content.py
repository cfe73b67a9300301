from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.smtp.transaction import LONGEST_PIECE, TERMINATOR, wire_pieces


def written(*buffers: bytes) -> bytes:
    return b"".join(wire_pieces(buffers))


def unstuffed(wire: bytes) -> bytes:
    """What a strict server makes of content and terminator; fails if the content ends before the terminator."""
    lines = (wire + TERMINATOR).split(b"\r\n")
    assert lines.index(b".") == len(lines) - 2
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:-2])


@pytest.mark.parametrize(
    ("buffers", "wire"),
    [
        pytest.param([b"a\r\nb\r\n"], b"a\r\nb\r\n", id="nothing to do"),
        pytest.param([b".\r\n"], b"..\r\n", id="a lone dot"),
        pytest.param([b"a\r\n.b\r\n..c\r\n"], b"a\r\n..b\r\n...c\r\n", id="dots at line starts"),
        pytest.param([b"a.b\r\nc.\r\n"], b"a.b\r\nc.\r\n", id="dots elsewhere"),
        pytest.param([b"a\r\n", b".b\r\n"], b"a\r\n..b\r\n", id="line starts in the next buffer"),
        pytest.param([b"a\r", b"\n", b"", b".", b"\r\n"], b"a\r\n..\r\n", id="cut everywhere"),
        pytest.param([b"a", b".b\r\n"], b"a.b\r\n", id="buffer that starts within a line"),
        pytest.param([b"a"], b"a\r\n", id="no line end at the end"),
        pytest.param([b"a\r\n."], b"a\r\n..\r\n", id="a dot without a line end"),
        pytest.param([], b"", id="nothing"),
        pytest.param([b"", b""], b"", id="empty buffers"),
    ],
)
@pytest.mark.parametrize("padding", [0, LONGEST_PIECE], ids=["short", "long"])
def test_content_on_the_wire(buffers: list[bytes], wire: bytes, padding: int) -> None:
    line = b"x" * 62 + b"\r\n"
    filler = line * (padding // len(line))
    assert written(filler, *buffers) == filler + wire


_BYTES = st.lists(st.sampled_from([b"\r\n", b".", b"a", b"\r\n.\r\n", b"bc" * 300, b".." * 40_000])).map(b"".join)


@pytest.mark.slow
@given(_BYTES, st.data())
def test_content_comes_back_from_a_strict_server(content: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    buffers = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    pieces = list(wire_pieces(buffers))
    assert all(0 < len(piece) <= LONGEST_PIECE for piece in pieces)
    expected = content if content.endswith(b"\r\n") or not content else content + b"\r\n"
    assert unstuffed(b"".join(pieces)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("size", [LONGEST_PIECE // 2 + 1, LONGEST_PIECE, LONGEST_PIECE + 1, 3 * LONGEST_PIECE])
@pytest.mark.parametrize("unit", [b".\r\n", b"\r\n.", b"a\r\n.b\r\n"])
def test_stuffing_holds_at_every_border_of_windows(size: int, unit: bytes) -> None:
    for shift in range(4):
        content = b"x" * shift + unit * (size // len(unit)) + b"\r\n"
        assert unstuffed(written(content)) == content


def test_a_large_buffer_is_not_copied() -> None:
    attachment = (b"QUJD" * 19 + b"\r\n") * 5_000
    pieces = list(wire_pieces([b"head\r\n", attachment, b"tail\r\n"]))
    shared = [piece for piece in pieces if isinstance(piece, memoryview)]
    assert all(piece.obj is attachment for piece in shared)
    assert sum(map(len, shared)) > len(attachment) - LONGEST_PIECE


def test_a_short_message_is_one_piece() -> None:
    assert len(list(wire_pieces([b"a\r\n"] * 50))) == 1
