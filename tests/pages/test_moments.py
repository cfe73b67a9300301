"""Times on a page: exact for programs, by this computer's clock for people."""

from __future__ import annotations

import time

import pytest

from bulkmail.pages.moments import moment


@pytest.fixture(autouse=True)
def vienna(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "Europe/Vienna")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("shown", "said"),
    [("clock", "23:13"), ("clock_second", "23:13:20"), ("minute", "2023-11-14 23:13")],
)
def test_moment_is_exact_and_by_the_clock_of_this_computer(shown: str, said: str) -> None:
    assert moment(1_700_000_000.5, shown) == (
        f'<time datetime="2023-11-14T22:13:20.500Z" data-shown="{shown}">{said}</time>'
    )


def test_no_moment_is_nothing() -> None:
    assert moment(None, "clock") == ""
