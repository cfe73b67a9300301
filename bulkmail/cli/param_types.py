"""What options and arguments are given as: types of click that read by our parsers and fail in our words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import click

from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.quantities import parse_duration, parse_share
from bulkmail.model.rate import Rate
from bulkmail.model.recipient import Address
from bulkmail.settings.problems import Said

T = TypeVar("T")


class Parsed(click.ParamType[T], Generic[T]):
    """What `parse` makes of a text; help shows it as `metavar`.  Faults name the option, the value and the fix."""

    def __init__(self, metavar: str, parse: Callable[[str], T], *, fix: str = "") -> None:
        self.name = metavar
        self._parse = parse
        self._fix = fix

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """As help shows it."""
        return self.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value itself if it was read already, as a default is."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except (ConfigError, AddressError) as error:
            is_option = isinstance(param, click.Option)
            said = Said(value, max(param.opts, key=len) if param is not None and is_option else "", Path("."))
            raise ConfigError(
                f"{str(said).strip(' =')}: {error}", hint=self._fix or getattr(error, "hint", "")
            ) from None


ADDRESS = Parsed("ADDRESS", Address.parse, fix="write it as name@example.com")
AGE = Parsed("TIME", parse_duration)
RATE = Parsed("RATE", Rate.parse)
SHARE = Parsed("SHARE", parse_share)
