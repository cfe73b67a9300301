from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkmail.smtp.replies import Capabilities, parse_capabilities


def test_capabilities_of_a_full_answer() -> None:
    lines = [
        "mail.example.com at your service",
        "PIPELINING",
        "CHUNKING",
        "SIZE 52428800",
        "SMTPUTF8",
        "8BITMIME",
        "STARTTLS",
        "DSN",
        "AUTH PLAIN LOGIN",
        "XSOMETHING 1 2",
    ]
    assert parse_capabilities(lines) == Capabilities(
        pipelining=True,
        chunking=True,
        size_limit=52_428_800,
        smtputf8=True,
        eight_bit_mime=True,
        starttls=True,
        dsn=True,
        auth_mechanisms=("PLAIN", "LOGIN"),
    )


@pytest.mark.parametrize(
    ("line", "limit"),
    [("SIZE 1000", 1000), ("SIZE", 0), ("SIZE 0", 0), ("size 7", 7), ("SIZE many", 0), ("SIZE -5", 0), ("HELP", None)],
)
def test_size_limit(line: str, limit: int | None) -> None:
    assert parse_capabilities(["host", line]).size_limit == limit


@pytest.mark.parametrize(
    ("lines", "mechanisms"),
    [
        pytest.param(["AUTH plain Login"], ("PLAIN", "LOGIN"), id="any case"),
        pytest.param(["AUTH=LOGIN"], ("LOGIN",), id="old form"),
        pytest.param(["AUTH PLAIN", "AUTH=PLAIN LOGIN"], ("PLAIN", "LOGIN"), id="both forms"),
        pytest.param(["AUTH"], (), id="none named"),
        pytest.param(["AUTH PLAIN \x1b[31m"], ("PLAIN",), id="hostile word"),
    ],
)
def test_auth_mechanisms(lines: list[str], mechanisms: tuple[str, ...]) -> None:
    assert parse_capabilities(["host", *lines]).auth_mechanisms == mechanisms


def test_the_name_of_the_server_is_no_extension() -> None:
    assert parse_capabilities(["STARTTLS"]) == Capabilities()


@pytest.mark.slow
@given(st.lists(st.text()))
def test_capabilities_never_raise(lines: list[str]) -> None:
    parse_capabilities(lines)
