"""Errors: one sentence, perhaps a hint, and a family tree that callers catch by."""

from __future__ import annotations

import inspect

import pytest

from bulkmail.model import errors
from bulkmail.model.errors import AddressError, BulkmailError, ConfigError, OutboxBusy, OutboxError, TemplateError

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not AddressError], ids=lambda kind: kind.__name__)
def test_error_carries_a_sentence_and_a_hint(kind: type[BulkmailError]) -> None:
    error = kind("the cat is out", hint="call it")
    assert isinstance(error, BulkmailError)
    assert (str(error), error.hint) == ("the cat is out", "call it")
    assert kind("the cat is out").hint == ""


def test_error_family_is_the_one_that_callers_catch_by() -> None:
    assert issubclass(TemplateError, ConfigError)
    assert issubclass(OutboxBusy, OutboxError)
    assert issubclass(AddressError, ValueError)
    assert issubclass(AddressError, BulkmailError)
    assert not issubclass(BulkmailError, (ValueError, OSError))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_error_says_in_its_docstring_when_it_is_raised(kind: type[Exception]) -> None:
    assert inspect.getdoc(kind)
