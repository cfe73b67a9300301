"""What an outbox notes of its run: each note with its name and its type, and the one way to write and to read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct
from msgspec.structs import fields

from bulkmail.model.breaker import Ahead, StopRequest
from bulkmail.model.errors import OutboxError
from bulkmail.model.notification import NotifySettings
from bulkmail.model.pace import Pace
from bulkmail.model.route import Route
from bulkmail.model.schedule import Schedule
from bulkmail.model.shaper import Slowdown
from bulkmail.model.suppression import ListInUse
from bulkmail.model.timing import Hold
from bulkmail.outbox.entries import storable
from bulkmail.outbox.sqlite_file import Moment

_FOR_EVER = 1e12  # seconds; JSON has no infinity


class Pause(Struct, frozen=True):
    """Why nothing is sent; `until` None is until the run is resumed."""

    until: Moment | None
    why: str

    @classmethod
    def of(cls, hold: Hold) -> Pause:
        """A hold as it is noted."""
        return cls(None if math.isinf(hold.until) else hold.until, hold.why)

    @property
    def hold(self) -> Hold:
        """The reverse."""
        return Hold(math.inf if self.until is None else self.until, self.why)


class RunInfo(Struct, frozen=True, kw_only=True):
    """What the run is, as it was begun, and how it stands.  A note that was never written has its default.

    `relay` and `relays` are what people call them; `sending` are routes and pace, which are read when sending goes on.
    `number` counts the runs under this name, `passes` are the run ids of the earlier ones that it goes on from;
    `follows` is the outbox of the run that it follows up.  `list_digest` says which list was loaded, `files` all that
    the campaign was made of, `suppress` the suppression files.  `maildir` is where a rehearsal kept its mail.
    `bounce_run` and `bounce_key` are the run and the key of the tokens in its messages.
    It has more attributes than a class should: each is one note, and they are written and read in one place.
    """

    name: str = ""
    list_name: str = ""
    list_digest: str = ""
    columns: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    suppress: tuple[str, ...] = ()
    suppression_list: ListInUse | None = None
    ignored: tuple[str, ...] = ()  # codes of findings
    is_rehearsal: bool = False
    redirect_to: str = ""
    maildir: str = ""
    has_hook: bool = False  # a program's on_message changes each message
    is_checked: bool = False  # it passed the checks before sending
    number: int = 1
    passes: tuple[str, ...] = ()
    follows: str = ""
    schedule: Schedule | None = None
    notify: NotifySettings = NotifySettings()  # the campaign's, never what the user's own settings say
    relay: str = ""
    relay_kind: str = ""
    relays: tuple[str, ...] = ()
    sending: msgspec.Raw = msgspec.Raw()
    is_routed: bool = False  # its deliveries were sorted by provider
    bounce_run: int = 0
    bounce_key: str = ""
    canary: dict[str, Ahead] = {}  # what went ahead, by id or by a copy's address
    canary_passed: bool = False
    rest: Pause | None = None
    stopped: StopRequest | None = None  # until it goes on
    slowdowns: tuple[Slowdown, ...] = ()

    @classmethod
    def begun(cls, routes: tuple[Route, ...], pace: Pace) -> RunInfo:
        """Of a run over `routes`.  A relay holds no secret, only where its password comes from."""
        kept = _Sending(routes, replace(pace, limit=None, wait=min(pace.wait, _FOR_EVER)))
        return cls(
            relay=" and ".join(route.label for route in routes) if len(routes) > 1 else str(routes[0].relay),
            relay_kind=routes[0].relay.kind.value,
            relays=tuple(route.label for route in routes),
            sending=msgspec.Raw(msgspec.json.encode(kept, enc_hook=_write_zone)),
        )

    def read_sending(self, outbox: object) -> tuple[tuple[Route, ...], Pace]:
        """The relays and the pace that the run in `outbox` was begun with.  Raises `OutboxError`."""
        try:
            found = msgspec.json.decode(self.sending, type=_Sending, dec_hook=_read_zone)
        except (LookupError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise OutboxError(f"{outbox} does not say how it was to be sent: {error}", hint="add --relay URL") from None
        return found.routes, found.pace

    @classmethod
    def read(cls, notes: Mapping[str, str]) -> RunInfo:
        """What was written, by key.  Raises `ValueError` or `MsgspecError` for a note that cannot be read."""
        found: dict[str, Any] = {}
        for note in fields(cls):
            if note.name in notes:
                try:
                    found[note.name] = msgspec.json.decode(notes[note.name], type=note.type)
                except msgspec.MsgspecError:
                    if note.name not in _FOR_PEOPLE:
                        raise
        return cls(**found)

    def notes(self) -> dict[str, str]:
        """What differs from the defaults, as it is written."""
        return written({note.name: getattr(self, note.name) for note in fields(self)}, leaves_out=RunInfo())


_FOR_PEOPLE = frozenset({"slowdowns"})  # a later version's, or edited: not worth refusing the run for


def written(values: Mapping[str, object], *, leaves_out: RunInfo | None = None) -> dict[str, str]:
    """Notes as they are written, without those that are as in `leaves_out`."""
    return {
        name: msgspec.json.encode(_storable(value)).decode()
        for name, value in values.items()
        if leaves_out is None or value != getattr(leaves_out, name)
    }


def _storable(value: object) -> object:
    if isinstance(value, tuple) and all(isinstance(each, str) for each in value):
        return tuple(map(storable, value))
    return storable(value) if isinstance(value, str) else value


class _Sending(Struct, frozen=True):
    routes: tuple[Route, ...]
    pace: Pace


def _write_zone(value: object) -> str:
    """A time zone by its name, or, as a program may give one that has none, by its distance from UTC."""
    if not isinstance(value, tzinfo):
        raise TypeError(f"a pace with a {type(value).__name__}")
    if value is UTC:
        return "UTC"
    return getattr(value, "key", None) or datetime.fromtimestamp(0, value).strftime("%z")


def _read_zone(kind: type, text: object) -> tzinfo:
    if not issubclass(kind, tzinfo):
        raise TypeError(f"a pace with a {kind.__name__}")
    if str(text)[:1] in ("+", "-"):
        zone = datetime.strptime(str(text), "%z").tzinfo
        assert zone is not None  # noqa: S101
        return zone
    return UTC if text == "UTC" else ZoneInfo(str(text))
