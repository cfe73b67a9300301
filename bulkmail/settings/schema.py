"""The shape of `campaign.toml`: its tables, keys and the types of their values.  Imports pydantic: import it late."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, time
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from bulkmail.model.lazy import dataclass
from bulkmail.settings.key_types import (
    FAULT,
    AddressList,
    AddressOption,
    Amount,
    AnyDurability,
    AnyQuota,
    AnyRamp,
    AnyRate,
    AnySoftRule,
    AnyTls,
    AnyVariants,
    AnyWindows,
    Bounces,
    BreakersTable,
    Columns,
    CommandPlace,
    Connections,
    ContentType,
    Count,
    CountOrNone,
    DkimPreset,
    DsnEvents,
    DsnReturn,
    Duration,
    EhloName,
    Encoding,
    EnvPlace,
    Expression,
    FilePlace,
    ImapUrl,
    ListenAddress,
    Locale,
    MailAddress,
    OneLine,
    Patterns,
    PositiveDuration,
    Priority,
    Processes,
    Program,
    ProvidersTable,
    ProviderTable,
    ProxyUrl,
    Reasons,
    RetryTable,
    ReversePath,
    RouteName,
    RowNumber,
    Sensitivity,
    Service,
    Share,
    SourceAddress,
    Start,
    Stillness,
    Table,
    TrustedFile,
    Unsigned,
    UserName,
    Wait,
    WebhookUrl,
    Weight,
    Word,
    Zone,
    joined,
    or_one,
)
from bulkmail.settings.layers import KeyPath
from bulkmail.settings.parsers import KEY
from bulkmail.settings.problems import show
from bulkmail.text import did_you_mean

F = TypeVar("F", bound=Table)


def _short_for(key: str) -> BeforeValidator:
    """A text may stand for the table whose `key` it is."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _message(value: object) -> object:
    """A text of several lines is the message itself, one of a single line names its file."""
    if isinstance(value, str):
        return {"inline" if "\n" in value else "file": value}
    return value


def _moment_as_text(value: object) -> object:
    """TOML has moments of its own: `start = 2026-12-01T09:00:00+01:00`, and times of day: `send_at = 09:00:00`."""
    return value.isoformat() if isinstance(value, datetime | time) else value


def _alone_or_several(value: object) -> object:
    """What stands there once may stand there several times, as a list."""
    return value if isinstance(value, list) else [value]


class OauthTable(Table):
    """`[relay.oauth]`."""

    token_url: Annotated[str | None, Sensitivity.HOOK] = None
    client_id: Word | None = None
    scope: Word | None = None
    client_secret_env: EnvPlace = None
    client_secret_file: FilePlace = None
    client_secret_command: CommandPlace = None
    refresh_token_env: EnvPlace = None
    refresh_token_file: FilePlace = None
    refresh_token_command: CommandPlace = None


class RelayTable(Table):
    """`[relay]`, or `relay = "url"`; or `[[relay]]`, several times."""

    expected: ClassVar[str] = "a relay URL in quotes or a table"
    url: str | None = None
    username: UserName | None = None
    password_env: EnvPlace = None
    password_file: FilePlace = None
    password_command: CommandPlace = None
    keyring: Annotated[bool | None, Sensitivity.SECRET] = None
    connections: Connections | None = None
    tls: AnyTls | None = None
    ca_file: TrustedFile = None
    ehlo_name: EhloName | None = Field(default=None, alias="ehlo")
    name: RouteName | None = None
    weight: Weight | None = None
    priority: Priority | None = None
    rate: AnyRate | None = None
    quota: AnyQuota | None = None
    messages_per_session: Count | None = None
    session_age: PositiveDuration | None = None
    senders: Patterns | None = None
    recipients: Patterns | None = None
    dsn: Annotated[DsnEvents | None, BeforeValidator(joined)] = None
    dsn_return: DsnReturn | None = None
    requires_tls: bool | None = Field(default=None, alias="requiretls")
    source_address: SourceAddress | None = None
    client_certificate: TrustedFile = None
    client_key: TrustedFile = None
    client_key_password_env: EnvPlace = None
    client_key_password_file: FilePlace = None
    client_key_password_command: CommandPlace = None
    proxy: ProxyUrl = None
    proxy_password_env: EnvPlace = None
    proxy_password_file: FilePlace = None
    proxy_password_command: CommandPlace = None
    token_file: FilePlace = None
    token_command: CommandPlace = None
    oauth: OauthTable | None = None


class RecipientsTable(Table):
    """`[recipients]`, or `recipients = "file"`."""

    expected: ClassVar[str] = "a file name in quotes or a table"
    file: str | None = None
    address: str | None = None
    address_column: str | None = None
    name_column: str | None = None
    encoding: Encoding | None = None
    sheet: Amount = None
    header_row: RowNumber | None = None
    keep_space: bool = False
    where: Expression | None = None
    suppress: list[str] = []
    allow_duplicates: bool = False
    allow_empty: bool = False
    max_invalid: Share | None = None
    group_by: Columns = []


class BodyTable(Table):
    """`text = "message.txt"`, a text of several lines, or `{ inline = "…" }`."""

    expected: ClassVar[str] = 'a file name in quotes, a text of several lines in """ or { inline = "…" }'
    file: str | None = None
    fallback: str | None = None
    inline: str | None = None


class AttachmentTable(Table):
    """`"menu.pdf"`, or a table that also gives its name and type."""

    expected: ClassVar[str] = "a file name in quotes or a table"
    file: str | None = None
    name: str | None = None
    type: ContentType | None = None
    optional: bool = False


class UnsubscribeTable(Table):
    """`[message.unsubscribe]`."""

    https: str | None = None
    mailto: str | None = None
    key_file: FilePlace = None
    key_env: EnvPlace = None
    key_command: CommandPlace = None


class DkimTable(Table):
    """`[message.dkim]`, or `[[message.dkim]]` for two signatures."""

    domain: str | None = None
    selector: str | None = None
    preset: DkimPreset | None = None
    key_file: FilePlace = None
    key_env: EnvPlace = None
    key_command: CommandPlace = None


class MessageTable(Table):
    """`[message]`."""

    sender: AddressOption | None = Field(default=None, alias="from")
    reply_to: AddressOption | None = None
    to_name: OneLine | None = None
    reverse_path: ReversePath | None = None
    subject: OneLine | None = None
    text: Annotated[BodyTable | None, BeforeValidator(_message)] = None
    html: Annotated[BodyTable | None, BeforeValidator(_message)] = None
    headers: dict[str, OneLine] = {}
    attachments: list[Annotated[AttachmentTable, _short_for("file")]] = []
    to: AddressList = None
    cc: AddressList = None
    bcc: AddressList = None
    sent_by: AddressOption | None = Field(default=None, alias="sender")
    list_id: OneLine | None = None
    feedback_id: OneLine | None = None
    unsubscribe: UnsubscribeTable | None = None
    dkim: Annotated[list[DkimTable], or_one(dict)] = []
    attachments_root: str | None = None
    markdown: Annotated[BodyTable | None, BeforeValidator(_message)] = None
    mjml: Annotated[BodyTable | None, BeforeValidator(_message)] = None
    preheader: OneLine | None = None
    calendar: Annotated[BodyTable | None, BeforeValidator(_message)] = None
    embed: bool = True
    inline_css: bool = True
    locale: Locale | None = None
    timezone: Zone | None = None
    variants: AnyVariants | None = None


class SendingTable(Table):
    """`[sending]`.  A key that is called as a part of `Pace` becomes that part."""

    rate: AnyRate | None = None
    burst: Count | None = None
    connections: Connections | None = None
    retry: Annotated[RetryTable, _short_for("recipient")] = RetryTable.model_construct()
    max_attempts: Count | None = None
    max_age: PositiveDuration | None = None
    wait: Wait | None = None
    patience: Duration | None = None
    messages_per_session: Count | None = None
    session_age: PositiveDuration | None = None
    durability: AnyDurability | None = None
    processes: Processes | None = None
    quota: AnyQuota | None = None
    windows: AnyWindows | None = Field(default=None, alias="window")
    start: Annotated[Start | None, BeforeValidator(_moment_as_text)] = None
    ramp: AnyRamp | None = None
    canary: CountOrNone | None = None
    send_at: Annotated[str | None, BeforeValidator(_moment_as_text)] = None
    timezone: str | None = None


class SuppressionsTable(Table):
    """`[suppressions]`."""

    file: str | None = None
    apply: Reasons | None = None
    hard: Bounces | None = None
    soft: AnySoftRule = None
    unsigned: Unsigned | None = None


class ServeTable(Table):
    """`[serve]`."""

    listen: ListenAddress | None = None
    keys: Annotated[list[str], Sensitivity.SECRET] = []
    key_command: CommandPlace = None
    trust_proxy: bool = False


class WebhookTable(Table):
    """`[[webhook]]`."""

    provider: Service | None = None
    topics: list[str] = []
    secret_env: EnvPlace = None
    secret_file: FilePlace = None
    secret_command: CommandPlace = None


class NotifyTable(Table):
    """`[notify]`."""

    mail: MailAddress | None = None
    webhook: WebhookUrl = None
    webhook_env: EnvPlace = None
    webhook_file: FilePlace = None
    webhook_command: CommandPlace = None
    secret_env: EnvPlace = None
    secret_file: FilePlace = None
    secret_command: CommandPlace = None
    command: Program = None
    after: Stillness | None = None


class BouncesTable(Table):
    """One `[[bounces]]`: a mailbox that `bulkmail bounces` reads."""

    imap: ImapUrl = None
    maildir: str | None = None
    mbox: str | None = None
    folder: str | None = None
    then: str | None = None
    password_env: EnvPlace = None
    password_file: FilePlace = None
    password_command: CommandPlace = None


class UserFile(Table):
    """`config.toml` in the user's own configuration folder: what holds for all campaigns."""

    suppressions: SuppressionsTable = SuppressionsTable()
    notify: NotifyTable = NotifyTable()
    serve: ServeTable = ServeTable()
    webhook: Annotated[list[WebhookTable], or_one(dict)] = []
    bounces: Annotated[list[BouncesTable], or_one(dict)] = []


class CampaignFile(Table):
    """The whole file."""

    name: str | None = None
    relays: Annotated[
        list[Annotated[RelayTable, _short_for("url")]], BeforeValidator(_alone_or_several), Field(alias="relay")
    ] = []
    recipients: Annotated[RecipientsTable, _short_for("file")] = RecipientsTable.model_construct()
    message: MessageTable = MessageTable.model_construct()
    sending: SendingTable = SendingTable.model_construct()
    data: Any = None
    mailbox_providers: ProvidersTable | None = None
    breakers: BreakersTable = BreakersTable.model_construct()
    suppressions: SuppressionsTable = SuppressionsTable.model_construct()
    notify: NotifyTable = NotifyTable.model_construct()

    @property
    def relay(self) -> RelayTable | None:
        """The first relay's table."""
        return self.relays[0] if self.relays else None


@dataclass(frozen=True, slots=True)
class Mistake:
    """One fault: the key it is at, what was found and expected, and how to fix it; `what` is wrong with a value."""

    path: KeyPath
    text: str
    fix: str = ""
    what: str = ""


def read_campaign(data: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[CampaignFile, list[Mistake]]:
    """The file's tables, without what has a fault, and all those faults."""
    return _read(CampaignFile, data, environ)


def read_user_file(data: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[UserFile, list[Mistake]]:
    """The same of the user's own `config.toml`."""
    return _read(UserFile, data, environ)


def read_relay_options(options: Mapping[str, str], environ: Mapping[str, str]) -> tuple[RelayTable, list[Mistake]]:
    """The same of the options of a relay's URL that `[relay]` has keys for."""
    return _read(RelayTable, options, environ, is_url=True)


def _read(
    shape: type[F], data: Mapping[str, Any], environ: Mapping[str, str], *, is_url: bool = False
) -> tuple[F, list[Mistake]]:
    context = {"environ": environ, "is_url": is_url}
    sound, mistakes = copy.deepcopy(dict(data)), list[Mistake]()
    while True:
        try:
            return shape.model_validate(sound, context=context), mistakes
        except ValidationError as error:
            found = [_mistake(sound, one) for one in error.errors(include_url=False)]
        # What is left of a list or a table may have a fault for want of what was taken out: that is not another one.
        mistakes = mistakes or found
        # From the back, so that taking an item out of a list does not renumber those still to be taken out.
        for path in sorted({mistake.path for mistake in found}, key=_sort_key, reverse=True):
            _take_out(sound, path)


def _sort_key(path: KeyPath) -> tuple[tuple[bool, int, str], ...]:
    return tuple((isinstance(step, int), step if isinstance(step, int) else 0, str(step)) for step in path)


def _take_out(data: Any, path: KeyPath) -> None:
    *above, last = path
    for step in above:
        data = data[step]
    del data[last]


def _mistake(data: Mapping[str, Any], error: Mapping[str, Any]) -> Mistake:
    path = tuple(_existing(data, error["loc"]))
    if error["type"] == "extra_forbidden":
        return _unknown_key(path)
    if error["type"] == FAULT:
        what, hint = error["ctx"]["what"], error["ctx"]["hint"]
        hint = hint.replace(KEY, str(path[-1]))
        return Mistake(path, f"{_written(path, error['ctx']['written'])}: {what}", hint, what)
    value = None if path[0] == "relay" else error["input"]  # what has the wrong type may be a password
    return Mistake(path, f"{_written(path, value)}: expected {_expected(error)}", _with_quotes(path, error))


def _written(path: KeyPath, value: object) -> str:
    """The key with its value, unless that is long or may be a secret."""
    name = next(str(step) for step in reversed(path) if isinstance(step, str))
    is_secret = name == "username" or sensitivity_of(path) not in (None, Sensitivity.COMMAND)
    if is_secret or not isinstance(value, str | int | float):
        return name
    return f"{name} = {show(value)}"


def _existing(data: Any, path: KeyPath) -> Iterator[str | int]:
    """As much of `path` as was written: a text that stands for a table has no keys of its own."""
    for step in path:
        match data:
            case dict() if step in data:
                data = data[step]
            case list() if isinstance(step, int):
                data = data[step]
            case dict() if step == 0:  # a table that stands for a list
                continue
            case _:
                return
        yield step


_EXPECTED: dict[str, str] = {
    "string_type": "a text in quotes",
    "int_type": "a whole number without quotes",
    "int_from_float": "a whole number",
    "bool_type": "true or false, without quotes",
    "list_type": "a list in square brackets",
    "dict_type": "a table",
}


def _expected(error: Mapping[str, Any]) -> str:
    if error["type"] in ("model_type", "model_attributes_type"):
        name = error["ctx"]["class_name"]
        return next(table.expected for table in _all_tables() if table.__name__ == name)
    return _EXPECTED.get(error["type"], str(error["msg"]))


def _with_quotes(path: KeyPath, error: Mapping[str, Any]) -> str:
    value = error["input"]
    if error["type"] != "string_type" or isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if path[0] == "relay":  # it may be a password
        return ""
    return f"write {show(str(value))}" if isinstance(path[-1], int) else f"write {path[-1]} = {show(str(value))}"


def _unknown_key(path: KeyPath) -> Mistake:
    *above, key = path
    known = known_keys(above)
    table = f"[{'.'.join(str(step) for step in above if isinstance(step, str))}]" if above else "this file"
    if [step for step in above if isinstance(step, str)] == ["relay", "oauth"] and key in (
        "client_secret",
        "refresh_token",
    ):
        return Mistake(
            path,
            f"a secret does not belong in a file that others may read: [relay.oauth] has no key {show(str(key))}",
            f"write {key}_file, {key}_env or {key}_command",
        )
    if "password" in str(key) and above[:1] == ["relay"]:
        return Mistake(
            path,
            f"a password does not belong in a file that others may read: [relay] has no key {show(str(key))}",
            'write password_env = "NAME", password_file, password_command or keyring = true',
        )
    fix = did_you_mean(str(key), known) or _elsewhere(str(key)) or f"known are {', '.join(known)}"
    return Mistake(path, f"{table} has no key {show(str(key))}", fix)


def _elsewhere(key: str) -> str:
    """Where a key stands that was written into the wrong table."""
    for name, table in _tables_by_name().items():
        if key in _keys(table):
            return f"{key} belongs into [{name}]" if name else f"{key} belongs above the first [table]"
    return ""


def sensitivity_of(path: Iterable[str | int]) -> Sensitivity | None:
    """Whether the key at `path`, or the table that it names, names a command, a secret or a hook; None if not."""
    names = [step for step in path if isinstance(step, str)]
    try:
        key, table = names.pop(), _table_at(names)
    except (IndexError, KeyError):
        return None
    field = next((each for name, each in table.model_fields.items() if key in (name, each.alias)), None)
    return next((each for each in field.metadata if isinstance(each, Sensitivity)), None) if field else None


def known_keys(path: list[str | int]) -> list[str]:
    """The keys that the table at `path` may have, in the order of the manual."""
    return _keys(_table_at([str(step) for step in path if isinstance(step, str)]))


def _table_at(names: list[str]) -> type[Table]:
    """Raises `KeyError` where there is no table of this name."""
    match names:
        case ["message", "attachments"]:
            return AttachmentTable
        case ["message", "text" | "html" | "markdown" | "mjml" | "calendar"]:
            return BodyTable
        case ["message", "unsubscribe"]:
            return UnsubscribeTable
        case ["message", "dkim"]:
            return DkimTable
        case ["relay", "oauth"]:
            return OauthTable
        case ["sending", "retry"]:
            return RetryTable
        case ["mailbox_providers", _]:
            return ProviderTable
        case _:
            return _tables_by_name()[".".join(names)]


def _keys(table: type[Table]) -> list[str]:
    return [field.alias or name for name, field in table.model_fields.items()]


def _tables_by_name() -> dict[str, type[Table]]:
    return {
        "message": MessageTable,
        "recipients": RecipientsTable,
        "sending": SendingTable,
        "mailbox_providers": ProvidersTable,
        "breakers": BreakersTable,
        "suppressions": SuppressionsTable,
        "notify": NotifyTable,
        "serve": ServeTable,
        "webhook": WebhookTable,
        "bounces": BouncesTable,
        "": CampaignFile,
        "relay": RelayTable,  # last: some of its keys mean a relay's own share of what stands elsewhere for all
    }


def _all_tables() -> list[type[Table]]:
    inner = (BodyTable, AttachmentTable, UnsubscribeTable, DkimTable, ProviderTable, OauthTable, RetryTable)
    return [*_tables_by_name().values(), *inner]
