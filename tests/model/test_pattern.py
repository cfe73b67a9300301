"""Patterns are compiled when they are first used, and all of them can be."""

from __future__ import annotations

import copy
import importlib
import pkgutil
import re

import pytest

import bulkmail
from bulkmail.model.lazy import _LazyPattern, lazy_pattern


def test_pattern_is_compiled_at_its_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    original = re.compile

    def compile_noted(source: str, flags: int = 0) -> re.Pattern[str]:
        compiled.append(source)
        return original(source, flags)

    monkeypatch.setattr(re, "compile", compile_noted)
    digits = lazy_pattern("[0-9]+x", re.IGNORECASE)
    assert digits.pattern == "[0-9]+x" and not compiled
    assert [digits.fullmatch(text) is not None for text in ("12X", "12x", "x")] == [True, True, False]
    assert digits.sub("-", "a1xb22X") == "a-b-"
    assert digits.flags & re.IGNORECASE
    assert compiled == ["[0-9]+x"] * 3  # once for each method, and `re` remembers what it compiled


def test_pattern_of_bytes_takes_bytes() -> None:
    assert lazy_pattern(rb"a(b)").findall(b"abab") == [b"b", b"b"]


def test_pattern_that_is_none_is_an_error_when_it_is_used() -> None:
    wrong = lazy_pattern("(")
    with pytest.raises(re.error):
        wrong.search("x")


def test_pattern_can_be_copied_and_shown() -> None:
    known = lazy_pattern("a+")
    assert copy.copy(known).search("xaa") is not None
    assert repr(known) == "lazy_pattern('a+')"


@pytest.mark.slow
def test_every_pattern_of_the_package_can_be_compiled() -> None:
    seen = 0
    for module in pkgutil.walk_packages(bulkmail.__path__, "bulkmail."):
        if module.name == "bulkmail.__main__":
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, _LazyPattern):
                seen += 1
                assert isinstance(re.compile(value.pattern, value._flags), re.Pattern)
    assert seen > 100
