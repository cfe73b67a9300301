"""Cells that programs have damaged, and places that were to be filled in."""

from __future__ import annotations

import pytest

from bulkmail.checks.leftovers import damage, is_worth_a_look, leftover

# How UTF-8 looks in another character set, and the other way round.
DAMAGED = [
    *(name.encode().decode(other) for name in ("Müller", "Größe", "Привет") for other in ("cp1252", "cp1251", "cp437")),
    "Müller".encode().decode("mac_roman"),
    "Müller".encode().decode("cp850"),
    "Müller".encode("cp850").decode("latin-1"),
    "Bärbel".encode("cp850").decode("cp1252"),
    "Müller".encode("latin-1").decode("mac_roman"),
    "Αννα".encode().decode("cp1252", "ignore"),
    "M?ller",
    "M\\u00fcller",
    "M%C3%BCller",
    "M=C3=BCller",
    "=?utf-8?q?M=C3=BCller?=",
    "=?UTF-8?B?TcO8bGxlcg==?=",
]
FINE = [
    "Müller",
    "Привет",
    "Сёмин",
    "Гёте",
    "Съезд",
    "Їжак",
    "Αννα",
    "Ï",
    "NAÏF",
    "Ðóra",
    "ÐÓRA",
    "Þórður",
    "João",
    "Ñandú",
    "España",
    "ESPAÑA",
    "Œuvre",
    "√2",
    "Really? Yes",
    "Who?",
    "https://example.com/?q=%C3%BC",
    "https://example.com/a?b=c",
    "example.com/a?b",
    "„Anna“",
    "5 %",
    "100%C",
    "├── a",
    "=1+1",
    "C:\\users",
]


@pytest.mark.parametrize("cell", DAMAGED)
def test_damaged_cell_is_found(cell: str) -> None:
    assert is_worth_a_look(cell)
    assert damage(cell)


@pytest.mark.parametrize("cell", FINE)
def test_cell_that_only_looks_odd_is_not_damaged(cell: str) -> None:
    assert damage(cell) == ""


@pytest.mark.parametrize("text", ["%NAME%", "%First Name%", "%email%"])
def test_name_between_percent_signs_is_left_over(text: str) -> None:
    assert leftover(f"Dear {text},") == text


@pytest.mark.parametrize("text", ["5% to 10% off", "50%name", "a%name%b", "% name %"])
def test_percentage_is_not_left_over(text: str) -> None:
    assert leftover(text) == ""
