"""The suppression list of a run: who is not to be sent to, read at every start, and the keys of its tokens."""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from bulkmail.cluster.database import shown, with_password
from bulkmail.feedback.matching import VerifyUnsubscribe
from bulkmail.message.header.addresses import is_same_for_all
from bulkmail.message.unsubscribe import read_unsubscribe
from bulkmail.message.verp import TOKEN
from bulkmail.model.campaign import BounceKey, Campaign, Keys
from bulkmail.model.errors import BulkmailError, ConfigError, SuppressionError
from bulkmail.model.feedback_event import KnownRun
from bulkmail.model.recipient import Address
from bulkmail.model.relay import Secret, commands_of
from bulkmail.model.suppression import (
    ALL_LISTS,
    ListInUse,
    SuppressionPolicy,
    SuppressionRules,
    campaign_scope,
    list_scope,
)
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader, is_outbox
from bulkmail.outbox.run_info import RunInfo
from bulkmail.recipients.screening import REACHED_NO_RECIPIENT, Suppression
from bulkmail.settings.presets import known_providers
from bulkmail.settings.secrets import find_keys
from bulkmail.settings.suppressions import VARIABLE, SuppressionSettings, load_suppressions
from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.index import SuppressionIndex
from bulkmail.suppression.stored_list import Suppressions
from bulkmail.text import printable

# -- Who is not to be sent to: the suppression files of a run, read at every start, and the suppression list.


Name = str | os.PathLike[str]


def read_suppression(names: Iterable[Name]) -> Suppression:
    """The addresses and domains in all of these files.  Of another run, those that it reached.

    Raises `ListError` and `OutboxError` for a file that cannot be read.
    """
    suppression = Suppression()
    for path in map(Path, names):
        if is_outbox(path):
            add_reached(suppression, path)
        else:
            suppression.add_file(path)
    return suppression


def add_reached(suppression: Suppression, outbox: Path) -> None:
    """Adds the recipients that the run in `outbox` reached: none if it is a rehearsal.  Raises `OutboxError`."""
    with OutboxReader.open(outbox) as reader:
        if reader.is_rehearsal:
            suppression.notices.append(f"{outbox}: {REACHED_NO_RECIPIENT}")
        suppression.add_keys(reader.reached(), name=f"{outbox.name}: reached already")


def add_pass(suppression: Suppression, outbox: Path) -> None:
    """Adds what an earlier pass of the same campaign, a real one, reached.  Raises `OutboxError`."""
    with OutboxReader.open(outbox) as reader:
        suppression.add_pass(reader.reached_of_rows(), name=f"{outbox.name}: reached already")


def refuse_faults(suppression: Suppression) -> None:
    """Raises `ConfigError` for entries that cannot be understood: the recipients they mean would be sent to."""
    if suppression.faults:
        place, reason = suppression.faults[0]
        more = f", and {suppression.fault_count - 1:,} more" if suppression.fault_count > 1 else ""
        raise ConfigError(
            f"{place}: {reason}, so that it is not clear which recipients to leave out{more}",
            hint="write one address or @domain in each line, or delete the line",
        )


def files_to_note(names: Iterable[Name]) -> tuple[str, ...]:
    """What an outbox remembers, so that a later start finds the files from any folder.  A pipe cannot be read again."""
    paths = [os.path.abspath(name) for name in names]
    return tuple(path for path in dict.fromkeys(paths) if not _is_pipe(path))


def _is_pipe(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path)


def files_of_start(given: Iterable[Name], remembered: Iterable[str]) -> list[str]:
    """The files to read when a run goes on: those that are named now, and those it remembers that are still there."""
    files = [os.path.abspath(name) for name in given]
    return list(dict.fromkeys([*files, *filter(os.path.isfile, remembered)]))


def check_there(files: Iterable[str]) -> None:
    """Raises `ConfigError` when one of the files that a run was begun with is gone: it may have new addresses."""
    for file in files:
        if not os.path.isfile(file):
            raise ConfigError(
                f"{printable(file, 4_000)}: this suppression file of the run is gone, so that recipients who have opted"
                " out since it began would be sent to",
                hint="restore it; if no recipient has opted out, create an empty file with that name",
            )


def is_there(used: ListInUse) -> bool:
    """Whether there is such a list."""
    return bool(used.store) or os.path.exists(used.file)


def open_used(used: ListInUse) -> Suppressions:
    """The list, made if need be.  Raises `SuppressionError`."""
    if used.store:
        return _open_in_store(used.store, used.rules)
    return open_suppressions(Path(used.file), used.rules)


def list_in_use(settings: SuppressionSettings | None, campaign: Campaign | None) -> ListInUse | None:
    """What `campaign` (None: ready-made messages) does with the list; None without settings, or without a home folder.

    Where no list can be there is none to apply either.
    """
    if settings is None:
        return None
    policy = SuppressionPolicy(settings.apply, scope_of(campaign))
    if settings.store:
        return ListInUse("", policy, settings.rules, shown(settings.store))
    try:
        path = settings.path()
    except RuntimeError:  # no home folder
        return None
    return ListInUse(str(path), policy, settings.rules)


def scope_of(campaign: Campaign | None) -> str | None:
    """The list that unsubscribing from `campaign` is about: its `list_id`, or its name; None if rows have several."""
    if campaign is None:
        return ALL_LISTS
    if campaign.list_id is None:
        return campaign_scope(campaign.name)
    return list_scope(campaign.list_id.text) if is_same_for_all(campaign.list_id.text) else None


def open_suppressions(path: Path, rules: SuppressionRules) -> SqliteSuppressions:
    """The list at `path`, made if need be.  Raises `SuppressionError`."""
    return SqliteSuppressions(path, rules=rules, provider_of=known_providers().of)


def _open_in_store(url: str, rules: SuppressionRules) -> Suppressions:
    from bulkmail.suppression.postgres import PostgresSuppressions  # imports asyncio, which others do without

    return PostgresSuppressions(with_password(url), rules=rules, provider_of=known_providers().of)


def open_settings(settings: SuppressionSettings) -> Suppressions:
    """The list that `settings` name, made if need be.  Raises `SuppressionError`."""
    if settings.store:
        return _open_in_store(settings.store, settings.rules)
    try:
        path = settings.path()
    except RuntimeError as error:
        hint = f"name a file with {VARIABLE}"
        raise SuppressionError(f"there is no place for the suppression list: {error}", hint=hint) from None
    return open_suppressions(path, settings.rules)


class ReadList:
    """What holds of the list while a mailing is loaded, or goes on; nothing is written to it.  Close it when done."""

    def __init__(self, store: Suppressions, policy: SuppressionPolicy) -> None:
        self._store = store
        self._index = SuppressionIndex(store, policy)

    @classmethod
    def open(cls, used: ListInUse | None) -> ReadList | None:
        """None while there is no such list.  Raises `SuppressionError` for one that cannot be read."""
        if used is None or not is_there(used):
            return None
        store = open_used(used)
        try:
            return cls(store, used.policy)
        except BaseException:
            store.close()
            raise

    def reason(self, key: str) -> str:
        """Why there is no mail to an `Address.key`; empty if there may be."""
        return self._index.reason(key)

    def close(self) -> None:
        """May be called again."""
        self._store.close()


def intake_overdue(used: ListInUse | None, *, now: float | None = None) -> float:
    """Seconds for which intake should have succeeded and has not; 0.0 without a list, or one that cannot be read.

    A list that must be readable is checked elsewhere.  Blocks.
    """
    if used is None or not is_there(used):
        return 0.0
    try:
        with open_used(used) as store:
            return store.intake_state().overdue(time.time() if now is None else now)
    except SuppressionError:
        return 0.0


def overdue_of(info: RunInfo) -> float:
    """The same for the list that an outbox remembers."""
    return intake_overdue(info.suppression_list)


# -- The keys of a run's tokens: those in reverse paths, and those in links to unsubscribe.


"""Settings of an outbox: the run's number, and which key its tokens were made with."""


def with_bounce_key(outbox: Outbox, keys: Keys) -> Keys:
    """`keys` with that of the tokens in the messages of `outbox`, whose run is registered; noted in the outbox.

    A campaign without `{bounce}` in its reverse path needs none, and a rehearsal registers nothing.  Raises
    `ConfigError` for a run that was begun with another key: its messages would be others.  Blocks.
    """
    campaign = outbox.campaign
    if campaign is None or outbox.is_rehearsal or TOKEN not in campaign.reverse_path or keys.bounce is not None:
        return keys
    used = outbox.info.suppression_list or list_in_use(load_suppressions(), campaign)
    if used is None:
        raise SuppressionError(
            f"there is no place for the suppression list, whose key signs {TOKEN} tokens",
            hint="name a file with BULKMAIL_SUPPRESSIONS",
        )
    noted = outbox.info.bounce_run
    if noted and not is_there(used):
        raise _other_key(used.name, "is gone")
    with open_used(used) as store:
        key = store.token_key()
        key_id = key_id_of(key)
        if noted and outbox.info.bounce_key != key_id:
            raise _other_key(used.name, "has another key now")
        run = store.register(known_run(outbox, outbox.path))
    if not noted:
        outbox.note(bounce_run=run.number, bounce_key=key_id)
    elif noted != run.number:
        raise _other_key(used.name, f"knows this run by another number ({run.number}, not {noted})")
    return replace(keys, bounce=BounceKey(run.number, Secret(key.hex())))


def _other_key(file: str, what: str) -> ConfigError:
    return ConfigError(
        f"the suppression list {file} {what}, and the {TOKEN} tokens of this run were made with it:"
        " its messages would change",
        hint="restore that file as it was when the run was begun",
    )


class RegisteredRun(Protocol):
    """The parts of a run that the register of runs asks for."""

    @property
    def run_id(self) -> str:
        """As its messages have it."""

    @property
    def campaign(self) -> Campaign | None:
        """What is sent; None for ready-made messages."""

    @property
    def info(self) -> RunInfo:
        """What is noted of it."""

    @property
    def started_at(self) -> float | None:
        """When sending began, wall-clock seconds."""


def known_run(outbox: RegisteredRun, path: Path | None = None) -> KnownRun:
    """What the register stores of a run, whose outbox is at `path`."""
    campaign = outbox.campaign
    return KnownRun(
        0,
        outbox.run_id,
        campaign=campaign.name if campaign is not None else outbox.info.name,
        list_id=scope_of(campaign) or "",
        outbox=str(path or ""),
        began_at=outbox.started_at or time.time(),
        is_bulk=campaign is not None and campaign.is_list_mail,
    )


def key_id_of(key: bytes) -> str:
    """Tells keys apart and says nothing about them."""
    return hmac.digest(key, b"bulkmail bounce key id", "sha256")[:8].hex()


def verifier_of(
    runs: Callable[[], Iterable[KnownRun]],
    reported: Callable[[str], None],
    *,
    served: Callable[[], Iterable[Secret]] = lambda: (),
) -> VerifyUnsubscribe:
    """Verifies tokens with the keys that [serve] names and the campaigns of `runs` do; they are looked up when the
    first token comes.

    `served` gives those of [serve], perhaps from a command; it may raise `ConfigError`.  `reported` gets a
    sentence about each key that cannot be had.
    """
    return _Verifier(runs, reported, served)


class _Verifier:
    def __init__(
        self,
        runs: Callable[[], Iterable[KnownRun]],
        reported: Callable[[str], None],
        served: Callable[[], Iterable[Secret]],
    ) -> None:
        self._runs = runs
        self._reported = reported
        self._served = served

    def __call__(self, token: str) -> tuple[Address, str] | None:
        request = read_unsubscribe(token, self._keys)
        return (request.address, request.list_id) if request is not None else None

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        served: list[str] = []
        try:
            served += [key.reveal() for key in self._served()]
        except ConfigError as error:
            self._reported(f"unsubscribe requests by mail cannot be verified with the keys of [serve]: {error}")
        places: dict[str, str] = {}
        for run in self._runs():
            if not run.outbox:
                continue
            with suppress(BulkmailError), OutboxReader.open(Path(run.outbox)) as reader:
                campaign = reader.campaign
                if campaign is None or campaign.unsubscribe is None or campaign.unsubscribe.key_from in places:
                    continue
                place = campaign.unsubscribe.key_from
                places[place] = ""
                if commands_of(place):
                    if not served:
                        self._reported(
                            f"unsubscribe requests by mail for {campaign.name!r} cannot be verified: its key comes from"
                            " a command, which intake does not run; name it with key_command below [serve]"
                        )
                    continue
                try:
                    key = find_keys(replace(campaign, dkim=())).unsubscribe
                except ConfigError as error:
                    self._reported(f"unsubscribe requests by mail for {campaign.name!r} cannot be verified: {error}")
                    continue
                places[place] = key.reveal() if key is not None else ""
        return tuple(dict.fromkeys([*served, *(key for key in places.values() if key)]))
