"""Numbers that keep the digits they were written with: a price of 19.90 is not to become 19.9."""

from __future__ import annotations

import math


class Literal(float):
    """A number that prints as `text`, and calculates as any other."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Literal:
        number = super().__new__(cls, text)
        number.text = text
        return number

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[Literal], tuple[str]]:
        return Literal, (self.text,)


def read_number(text: str) -> float:
    """The number that JSON writes as `text`.  Raises `ValueError` for one that is too large."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large a number")
    return number if repr(number) == text else Literal(text)
