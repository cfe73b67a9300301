"""What the tables of settings are made of: their keys with types that read themselves.  Imports pydantic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import tzinfo
from enum import Enum
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from bulkmail.model.errors import ConfigError
from bulkmail.model.pace import Durability
from bulkmail.model.quantities import parse_duration
from bulkmail.model.quota import Quota, Ramp, parse_quota, parse_ramp
from bulkmail.model.rate import Rate
from bulkmail.model.recipient import parse_variants
from bulkmail.model.relay import Dsn, SecretKind, SecretSource, Tls, parse_connections, parse_proxy
from bulkmail.model.retry import parse_schedule
from bulkmail.model.route import parse_count, parse_name, parse_patterns
from bulkmail.model.schedule import FindZone, Windows, parse_start, parse_windows
from bulkmail.model.suppression import SoftRule
from bulkmail.settings import parsers
from bulkmail.settings.parsers import find_zone

FAULT = "bulkmail_fault"
"""The type of a fault that a parser of ours found; its context has `what`, `hint` and what was `written`."""


def _fault(error: ConfigError, written: object) -> PydanticCustomError:
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


def read_place(kind: SecretKind) -> PlainValidator:
    """The type of a place of this kind that a secret comes from.  No fault repeats it: it may be the secret itself."""

    def validate(value: object, info: ValidationInfo) -> SecretSource:
        text = _text(value, takes_numbers=False)
        try:
            return parsers.parse_place(kind, text, key=info.field_name or "")
        except ConfigError as error:
            raise _fault(error, None) from None

    return PlainValidator(validate)


def read_number(parse: Callable[[str], int]) -> PlainValidator:
    """The type of a number in a range; an option of a URL writes it as a text."""

    def validate(value: object, info: ValidationInfo) -> int:
        if type(value) is not int and not (isinstance(value, str) and (info.context or {}).get("is_url")):
            raise PydanticCustomError("int_type", "a whole number")
        try:
            return parse(str(value))
        except ConfigError as error:
            raise _fault(ConfigError("out of range", hint=error.hint), value) from None

    return PlainValidator(validate)


def checked_by(check: Callable[[Any], object]) -> AfterValidator:
    """Checks, or makes something else of, a value that has the right type already."""

    def validate(value: Any) -> object:
        try:
            return check(value)
        except ConfigError as error:
            raise _fault(error, value) from None

    return AfterValidator(validate)


def or_one(kind: type) -> BeforeValidator:
    """A value of this type may stand for the list that it is the only item of."""
    return BeforeValidator(lambda value: [value] if isinstance(value, kind) else value)


def joined(value: object) -> object:
    """A list of texts is as good as one text with commas in it."""
    return ", ".join(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value


def _equal_shares(value: object) -> object:
    """A list of names stands for the same share of each."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value):
        return dict.fromkeys(value, 1)
    return value


def _patterns(texts: Sequence[str]) -> tuple[str, ...]:
    return parse_patterns([pattern for text in texts for pattern in text.split(",")])


class Sensitivity(Enum):
    """Why a key can be changed only in a text editor: a web page must not become a shell, nor send secrets away.

    No fault repeats the value of such a key.
    """

    COMMAND = "command"  # it runs a program
    SECRET = "secret"  # it says where a secret is found, or who is trusted with one  # noqa: S105
    HOOK = "hook"  # it says where else a request with secrets or recipients in it goes


Amount = Annotated[
    str | None,
    BeforeValidator(lambda value: str(value) if type(value) in (int, float) else value),
]
AnyRate = Annotated[Rate, read_by(Rate.parse, takes_numbers=True)]
AnyQuota = Annotated[Quota, read_by(parse_quota)]
AnyRamp = Annotated[Ramp, read_by(parse_ramp)]
AnyWindows = Annotated[Windows, read_by_zone(parse_windows)]
Start = Annotated[float, read_by_zone(parse_start)]
Zone = Annotated[str, read_by_zone(parsers.parse_zone)]
Duration = Annotated[float, read_by(parse_duration, takes_numbers=True)]
PositiveDuration = Annotated[float, read_by(parsers.parse_positive, takes_numbers=True)]
Stillness = Annotated[float, read_by(parsers.parse_stillness, takes_numbers=True)]
Wait = Annotated[float, read_by(parsers.parse_wait, takes_numbers=True)]
Steps = Annotated[tuple[float, ...], read_by(parse_schedule)]
Rests = Annotated[tuple[float, ...], read_by(parsers.parse_rests)]
Share = Annotated[float, read_by(parsers.parse_percentage)]
Processes = Annotated[int, read_by(parsers.parse_processes, takes_numbers=True)]
AnyDurability = Annotated[Durability, read_by(parsers.parse_durability)]
Count = Annotated[int, checked_by(parsers.at_least_one)]
CountOrNone = Annotated[int, checked_by(parsers.not_negative)]
"""0 means never."""

EnvPlace = Annotated[SecretSource | None, read_place(SecretKind.ENV), Sensitivity.SECRET]
FilePlace = Annotated[SecretSource | None, read_place(SecretKind.FILE), Sensitivity.SECRET]
CommandPlace = Annotated[SecretSource | None, read_place(SecretKind.COMMAND), Sensitivity.COMMAND]
TrustedFile = Annotated[str | None, Sensitivity.SECRET]

Connections = Annotated[int, read_number(parse_connections)]
Weight = Annotated[int, read_number(partial(parse_count, what="weight"))]
Priority = Annotated[int, read_number(partial(parse_count, what="priority"))]
RouteName = Annotated[str, read_by(parse_name)]
Patterns = Annotated[list[str], checked_by(_patterns), or_one(str)]
AnyTls = Annotated[Tls, read_by(parsers.parse_tls)]
EhloName = Annotated[str, read_by(parsers.parse_ehlo)]
UserName = Annotated[str, read_by(parsers.parse_user_name)]
DsnEvents = Annotated[Dsn, read_by(parsers.parse_dsn_events)]
DsnReturn = Annotated[bool, read_by(parsers.parse_dsn_return)]
SourceAddress = Annotated[str, read_by(parsers.parse_source_address)]
ProxyUrl = Annotated[str | None, read_by(parse_proxy), Sensitivity.HOOK]
WebhookUrl = Annotated[str | None, read_by(parsers.parse_webhook), Sensitivity.HOOK]
Word = Annotated[str, read_by(parsers.parse_word)]
Program = Annotated[list[str] | None, checked_by(parsers.parse_program), Sensitivity.COMMAND]

OneLine = Annotated[str, read_by(parsers.parse_one_line)]
AddressOption = Annotated[str, read_by(parsers.parse_address_option)]
AddressList = Annotated[OneLine | None, BeforeValidator(joined)]
ReversePath = Annotated[str, read_by(parsers.parse_reverse_path)]
MailAddress = Annotated[str, read_by(parsers.parse_mail_address)]
Locale = Annotated[str, read_by(parsers.parse_locale)]
ContentType = Annotated[str, read_by(parsers.parse_content_type)]
DkimPreset = Annotated[str, read_by(parsers.parse_dkim_preset)]
AnyVariants = Annotated[dict[str, int], checked_by(parse_variants), BeforeValidator(_equal_shares)]

Encoding = Annotated[str, read_by(parsers.parse_encoding)]
Expression = Annotated[str, read_by(parsers.parse_expression)]
RowNumber = Annotated[int, checked_by(parsers.parse_row_number)]
Columns = Annotated[list[str], checked_by(parsers.parse_columns), or_one(str)]

Reasons = Annotated[list[str], checked_by(parsers.parse_reasons)]
Bounces = Annotated[int, checked_by(parsers.parse_bounces)]
AnySoftRule = Annotated[SoftRule | None, read_by(SoftRule.parse, takes_numbers=True)]
Unsigned = Annotated[bool, read_by(parsers.parse_unsigned)]
ListenAddress = Annotated[tuple[str, int], read_by(parsers.parse_listen)]
Service = Annotated[str, read_by(parsers.parse_service)]
ImapUrl = Annotated[Any, read_by(parsers.parse_imap), Sensitivity.SECRET]


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

    def places_of(self, noun: str) -> dict[str, SecretSource]:
        """The places that `noun_env`, `noun_file` and `noun_command` name, by key."""
        keys = [f"{noun}_{kind.value}" for kind in (SecretKind.ENV, SecretKind.FILE, SecretKind.COMMAND)]
        return {key: source for key in keys if (source := getattr(self, key, None)) is not None}


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
