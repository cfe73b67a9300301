"""Messages: their size and the digest that a resend must repeat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from bulkmail.model.delivery import Envelope, Message

MESSAGE = Message(
    Envelope("bounces@example.org", "ann@example.org"), "<1@example.org>", [b"Subject: hi\r\n", b"\r\n", b"hello\r\n"]
)


def test_size_is_the_sum_of_the_buffers() -> None:
    assert MESSAGE.size_bytes == 22
    assert replace(MESSAGE, buffers=[]).size_bytes == 0


def test_digest_is_16_bytes_and_the_same_each_time() -> None:
    assert len(MESSAGE.digest()) == 16
    assert MESSAGE.digest() == MESSAGE.digest()


def test_digest_stays_the_same_from_version_to_version() -> None:
    """It stands in outboxes beside rows in doubt: with another value none of them could be sent again."""
    assert MESSAGE.digest().hex() == "8613546bc32f74e1f282720c23e90132"


@pytest.mark.parametrize(
    "changes",
    [
        {"envelope": Envelope("", "ann@example.org")},
        {"envelope": Envelope("bounces@example.org", "bob@example.org")},
        {"envelope": Envelope("ann@example.org", "bounces@example.org")},
        {"envelope": Envelope("bounces@example.orga", "nn@example.org")},
        {"buffers": [b"Subject: hi\r\n", b"\r\n", b"hellO\r\n"]},
        {"buffers": [b"Subject: hi\r\n", b"\r\n"]},
    ],
    ids=["null-path", "other-recipient", "swapped", "shifted", "content", "shorter"],
)
def test_digest_changes_with_envelope_and_content(changes: dict[str, object]) -> None:
    assert replace(MESSAGE, **changes).digest() != MESSAGE.digest()  # type: ignore[arg-type]


def test_digest_takes_an_international_address() -> None:
    assert replace(MESSAGE, envelope=Envelope("é@example.org", "用户@example.org")).digest() != MESSAGE.digest()


@given(st.lists(st.binary(max_size=3), max_size=8))
def test_digest_and_size_do_not_depend_on_how_the_content_is_cut(buffers: list[bytes]) -> None:
    whole = replace(MESSAGE, buffers=[b"".join(buffers)])
    parts = replace(MESSAGE, buffers=buffers)
    assert parts.digest() == whole.digest()
    assert parts.size_bytes == whole.size_bytes
