"""What the tables of settings are made of: their keys with types that read themselves.  Imports pydantic."""

from __future__ import annotations

from collections.abc import Callable
from datetime import tzinfo
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from bulkmail.model.errors import ConfigError
from bulkmail.model.pace import Durability
from bulkmail.model.quantities import parse_duration
from bulkmail.model.quota import Quota, Ramp, parse_quota, parse_ramp
from bulkmail.model.rate import Rate
from bulkmail.model.retry import parse_schedule
from bulkmail.model.schedule import FindZone, Windows, parse_start, parse_windows
from bulkmail.settings.parsers import (
    at_least_one,
    find_zone,
    not_negative,
    parse_durability,
    parse_percentage,
    parse_positive,
    parse_processes,
    parse_rests,
    parse_wait,
)

FAULT = "bulkmail_fault"
"""The type of a fault that a parser of ours found; its context has `what`, `hint` and what was `written`."""


def _fault(error: ConfigError, written: str | int) -> PydanticCustomError:
    return PydanticCustomError(FAULT, "{what}", {"what": str(error), "hint": error.hint, "written": written})


def _text(value: object, *, takes_numbers: bool) -> str:
    if takes_numbers and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)  # `wait = 600` is as good as `wait = "600"`
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "a text")
    return value


def read_by(parse: Callable[[str], object], *, takes_numbers: bool = False) -> PlainValidator:
    """The type of what `parse` makes of a text."""

    def validate(value: object) -> object:
        text = _text(value, takes_numbers=takes_numbers)
        try:
            return parse(text)
        except ConfigError as error:
            raise _fault(error, text) from None

    return PlainValidator(validate)


def read_by_zone(parse: Callable[[str, FindZone], object]) -> PlainValidator:
    """The same where a time zone may be named; the context of the validation says whose environment counts."""

    def validate(value: object, info: ValidationInfo) -> object:
        text = _text(value, takes_numbers=False)

        def zone(name: str) -> tzinfo:
            return find_zone(name, **({"environ": info.context["environ"]} if info.context else {}))

        try:
            return parse(text, zone)
        except ConfigError as error:
            raise _fault(error, text) from None

    return PlainValidator(validate)


def _checked(check: Callable[[int], int], value: int) -> int:
    try:
        return check(value)
    except ConfigError as error:
        raise _fault(error, value) from None


Amount = Annotated[
    str | None,
    BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value),
]
AnyRate = Annotated[Rate, read_by(Rate.parse, takes_numbers=True)]
AnyQuota = Annotated[Quota, read_by(parse_quota)]
AnyRamp = Annotated[Ramp, read_by(parse_ramp)]
AnyWindows = Annotated[Windows, read_by_zone(parse_windows)]
Start = Annotated[float, read_by_zone(parse_start)]
Duration = Annotated[float, read_by(parse_duration, takes_numbers=True)]
PositiveDuration = Annotated[float, read_by(parse_positive, takes_numbers=True)]
Wait = Annotated[float, read_by(parse_wait, takes_numbers=True)]
Steps = Annotated[tuple[float, ...], read_by(parse_schedule)]
Rests = Annotated[tuple[float, ...], read_by(parse_rests)]
Share = Annotated[float, read_by(parse_percentage)]
Processes = Annotated[int, read_by(parse_processes, takes_numbers=True)]
AnyDurability = Annotated[Durability, read_by(parse_durability)]
Count = Annotated[int, AfterValidator(partial(_checked, at_least_one))]
CountOrNone = Annotated[int, AfterValidator(partial(_checked, not_negative))]
"""0 means never."""


class Table(BaseModel):
    """Every key may be left out here: what must be there is judged where its absence can be explained."""

    # Deferred, or each table is built once for itself and once more in the one above it.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True, arbitrary_types_allowed=True)
    expected: ClassVar[str] = "a table"

    @classmethod
    def field_of(cls, key: str) -> str:
        """The name of the attribute that has the value of `key`."""
        return next((name for name, field in cls.model_fields.items() if field.alias == key), key)

    def given(self) -> dict[str, Any]:
        """The values that the file sets, by attribute."""
        return {name: value for name in self.model_fields_set if (value := getattr(self, name)) is not None}


class RetryTable(Table):
    """`[sending.retry]`, or `retry = "steps"` for that of the recipients alone."""

    expected: ClassVar[str] = "a schedule in quotes, or a table of recipient, mailbox_provider and relay"
    recipient: Steps | None = None
    mailbox_provider: Rests | None = None
    relay: Rests | None = None


class ProviderTable(Table):
    """`[mailbox_providers.google]`, or any other name."""

    expected: ClassVar[str] = "a table of rate, connections, messages_per_session and domains"
    rate: AnyRate | None = None
    connections: Count | None = None
    messages_per_session: Count | None = None
    domains: list[str] = []
    exchangers: list[str] = []


class ProvidersTable(Table):
    """`[mailbox_providers]`: what holds for all, and a table for each provider."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ProviderTable] = Field(init=False)
    presets: bool | None = None
    by_mx: bool = False

    @property
    def named(self) -> dict[str, ProviderTable]:
        """The providers by name, in the order of the file."""
        return self.__pydantic_extra__


class BreakersTable(Table):
    """`[breakers]`."""

    policy_rejections: CountOrNone | None = None
    unknown_users: Share | None = None
    unknown_users_after: Count | None = None
    canary_rejections: Share | None = None
