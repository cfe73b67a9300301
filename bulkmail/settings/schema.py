"""The shape of `campaign.toml`: its tables, keys and the types of their values.  Imports pydantic: import it late."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, time
from enum import Enum
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from bulkmail.model.lazy import dataclass
from bulkmail.settings.key_types import (
    FAULT,
    Amount,
    AnyDurability,
    AnyQuota,
    AnyRamp,
    AnyRate,
    AnyWindows,
    BreakersTable,
    Count,
    CountOrNone,
    Duration,
    PositiveDuration,
    Processes,
    ProvidersTable,
    ProviderTable,
    RetryTable,
    Share,
    Start,
    Table,
    Wait,
)
from bulkmail.settings.layers import KeyPath
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


class Sensitivity(Enum):
    """Why a key can be changed only in a text editor: a web page must not become a shell, nor send secrets away."""

    COMMAND = "command"  # it runs a program
    SECRET = "secret"  # it says where a secret is found, or who is trusted with one  # noqa: S105
    HOOK = "hook"  # it says where else a request with secrets or recipients in it goes


Command = Annotated[str | None, Sensitivity.COMMAND]
SecretPlace = Annotated[str | None, Sensitivity.SECRET]
Domains = Annotated[list[str] | None, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class OauthTable(Table):
    """`[relay.oauth]`."""

    token_url: Annotated[str | None, Sensitivity.HOOK] = None
    client_id: str | None = None
    scope: str | None = None
    client_secret_env: SecretPlace = None
    client_secret_file: SecretPlace = None
    client_secret_command: Command = None
    refresh_token_env: SecretPlace = None
    refresh_token_file: SecretPlace = None
    refresh_token_command: Command = None


class RelayTable(Table):
    """`[relay]`, or `relay = "url"`; or `[[relay]]`, several times."""

    expected: ClassVar[str] = "a relay URL in quotes or a table"
    url: str | None = None
    username: str | None = None
    password_env: SecretPlace = None
    password_file: SecretPlace = None
    password_command: Command = None
    keyring: Annotated[bool | None, Sensitivity.SECRET] = None
    connections: int | None = None
    tls: str | None = None
    ca_file: SecretPlace = None
    ehlo: str | None = None
    name: str | None = None
    weight: int | None = None
    priority: int | None = None
    rate: Amount = None
    quota: str | None = None
    messages_per_session: int | None = None
    session_age: Amount = None
    senders: Domains = None
    recipients: Domains = None
    dsn: Annotated[str | None, BeforeValidator(lambda value: _joined(value))] = None
    dsn_return: str | None = None
    requiretls: bool | None = None
    source_address: str | None = None
    client_certificate: SecretPlace = None
    client_key: SecretPlace = None
    client_key_password_env: SecretPlace = None
    client_key_password_file: SecretPlace = None
    client_key_password_command: Command = None
    proxy: Annotated[str | None, Sensitivity.HOOK] = None
    proxy_password_env: SecretPlace = None
    proxy_password_file: SecretPlace = None
    proxy_password_command: Command = None
    token_file: SecretPlace = None
    token_command: Command = None
    oauth: OauthTable | None = None


class RecipientsTable(Table):
    """`[recipients]`, or `recipients = "file"`."""

    expected: ClassVar[str] = "a file name in quotes or a table"
    file: str | None = None
    address: str | None = None
    address_column: str | None = None
    name_column: str | None = None
    encoding: str | None = None
    sheet: Amount = None
    header_row: int | None = None
    keep_space: bool = False
    where: str | None = None
    suppress: list[str] = []
    allow_duplicates: bool = False
    allow_empty: bool = False
    max_invalid: Share | None = None
    group_by: Annotated[list[str], BeforeValidator(lambda value: _one_text(value))] = []


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
    type: str | None = None
    optional: bool = False


class UnsubscribeTable(Table):
    """`[message.unsubscribe]`."""

    https: str | None = None
    mailto: str | None = None
    key_file: SecretPlace = None
    key_env: SecretPlace = None
    key_command: Command = None


class DkimTable(Table):
    """`[message.dkim]`, or `[[message.dkim]]` for two signatures."""

    domain: str | None = None
    selector: str | None = None
    preset: str | None = None
    key_file: SecretPlace = None
    key_env: SecretPlace = None
    key_command: Command = None


def _joined(value: object) -> object:
    """A list of texts is as good as one text with commas in it."""
    return ", ".join(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value


def _one_text(value: object) -> object:
    """A text may stand for the list that it is the only item of."""
    return [value] if isinstance(value, str) else value


def _only_one(value: object) -> object:
    """A table may stand for the list that it is the only item of."""
    return [value] if isinstance(value, dict) else value


def _equal_shares(value: object) -> object:
    """A list of names stands for the same share of each."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value):
        return dict.fromkeys(value, 1)
    return value


AddressList = Annotated[str | None, BeforeValidator(_joined)]


class MessageTable(Table):
    """`[message]`."""

    sender: str | None = Field(default=None, alias="from")
    reply_to: str | None = None
    to_name: str | None = None
    reverse_path: str | None = None
    subject: str | None = None
    text: Annotated[BodyTable | None, BeforeValidator(_message)] = None
    html: Annotated[BodyTable | None, BeforeValidator(_message)] = None
    headers: dict[str, str] = {}
    attachments: list[Annotated[AttachmentTable, _short_for("file")]] = []
    to: AddressList = None
    cc: AddressList = None
    bcc: AddressList = None
    sent_by: str | None = Field(default=None, alias="sender")
    list_id: str | None = None
    feedback_id: str | None = None
    unsubscribe: UnsubscribeTable | None = None
    dkim: Annotated[list[DkimTable], BeforeValidator(_only_one)] = []
    attachments_root: str | None = None
    markdown: Annotated[BodyTable | None, BeforeValidator(_message)] = None
    mjml: Annotated[BodyTable | None, BeforeValidator(_message)] = None
    preheader: str | None = None
    calendar: Annotated[BodyTable | None, BeforeValidator(_message)] = None
    embed: bool = True
    inline_css: bool = True
    locale: str | None = None
    timezone: str | None = None
    variants: Annotated[dict[str, int] | None, BeforeValidator(lambda value: _equal_shares(value))] = None


class SendingTable(Table):
    """`[sending]`.  A key that is called as a part of `Pace` becomes that part."""

    rate: AnyRate | None = None
    burst: Count | None = None
    connections: int | None = None
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
    apply: list[str] | None = None
    hard: int | None = None
    soft: Amount = None
    unsigned: str | None = None


class ServeTable(Table):
    """`[serve]`."""

    listen: str | None = None
    keys: Annotated[list[str], Sensitivity.SECRET] = []
    key_command: Command = None
    trust_proxy: bool = False


class WebhookTable(Table):
    """`[[webhook]]`."""

    provider: str | None = None
    topics: list[str] = []
    secret_env: SecretPlace = None
    secret_file: SecretPlace = None
    secret_command: Command = None


class NotifyTable(Table):
    """`[notify]`."""

    mail: str | None = None
    webhook: Annotated[str | None, Sensitivity.HOOK] = None
    webhook_env: SecretPlace = None
    webhook_file: SecretPlace = None
    webhook_command: Command = None
    secret_env: SecretPlace = None
    secret_file: SecretPlace = None
    secret_command: Command = None
    command: Annotated[list[str] | None, Sensitivity.COMMAND] = None
    after: Amount = None


class BouncesTable(Table):
    """One `[[bounces]]`: a mailbox that `bulkmail bounces` reads."""

    imap: str | None = None
    maildir: str | None = None
    mbox: str | None = None
    folder: str | None = None
    then: str | None = None
    password_env: SecretPlace = None
    password_file: SecretPlace = None
    password_command: Command = None


class UserFile(Table):
    """`config.toml` in the user's own configuration folder: what holds for all campaigns."""

    suppressions: SuppressionsTable = SuppressionsTable()
    notify: NotifyTable = NotifyTable()
    serve: ServeTable = ServeTable()
    webhook: Annotated[list[WebhookTable], BeforeValidator(_only_one)] = []
    bounces: Annotated[list[BouncesTable], BeforeValidator(_only_one)] = []


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


def _read(shape: type[F], data: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[F, list[Mistake]]:
    context = {"environ": environ}
    try:
        return shape.model_validate(data, context=context), []
    except ValidationError as error:
        mistakes = [_mistake(data, one) for one in error.errors(include_url=False)]
    sound = copy.deepcopy(dict(data))
    # From the back, so that taking an item out of a list does not renumber those still to be taken out.
    for path in sorted({mistake.path for mistake in mistakes}, key=_sort_key, reverse=True):
        _take_out(sound, path)
    return shape.model_validate(sound, context=context), mistakes


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
        return Mistake(path, f"{_written(path, error['ctx']['written'])}: {what}", hint, what)
    return Mistake(path, f"{_written(path, error['input'])}: expected {_expected(error)}", _with_quotes(path, error))


def _written(path: KeyPath, value: object) -> str:
    """The key with its value, unless that is long or may be a secret."""
    name = next(str(step) for step in reversed(path) if isinstance(step, str))
    if path[0] == "relay" or not isinstance(value, str | int | float):
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
