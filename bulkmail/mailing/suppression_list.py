"""The suppression list as a mailing uses it: which file, what of it, and what the outbox remembers of both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bulkmail.config.suppressions import VARIABLE, SuppressionSettings
from bulkmail.config.tables import known_providers
from bulkmail.message.row_address import is_same_for_all
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import OutboxError, SuppressionError
from bulkmail.model.lazy_dataclass import dataclass
from bulkmail.model.suppression import ALL_LISTS, SuppressionPolicy, SuppressionRules, campaign_scope, list_scope
from bulkmail.suppression.index import SuppressionIndex
from bulkmail.suppression.store import SqliteSuppressions

SETTING = "suppression_list"  # of the outbox: the file and what of it holds, as JSON


@dataclass(frozen=True, slots=True)
class ListInUse:
    """The list in `file`, of which a run applies `policy`, and to which it adds by `rules`."""

    file: str
    policy: SuppressionPolicy
    rules: SuppressionRules

    def recorded(self) -> str:
        """For the outbox."""
        return msgspec.json.encode(self).decode()


def list_in_use(settings: SuppressionSettings | None, campaign: Campaign | None) -> ListInUse | None:
    """What `campaign` (None: ready-made messages) does with the list; None without settings, or without a home folder.

    Where no list can be there is none to apply either.
    """
    if settings is None:
        return None
    try:
        path = settings.path()
    except RuntimeError:  # no home folder
        return None
    return ListInUse(str(path), SuppressionPolicy(settings.apply, scope_of(campaign)), settings.rules)


def scope_of(campaign: Campaign | None) -> str | None:
    """The list that unsubscribing from `campaign` is about: its `list_id`, or its name; None if rows have several."""
    if campaign is None:
        return ALL_LISTS
    if campaign.list_id is None:
        return campaign_scope(campaign.name)
    return list_scope(campaign.list_id.text) if is_same_for_all(campaign.list_id.text) else None


def recorded_list(settings: Mapping[str, str]) -> ListInUse | None:
    """What an outbox remembers of the list; None for one that was begun without.  Raises `OutboxError`."""
    text = settings.get(SETTING)
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=ListInUse)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise OutboxError(f"the outbox does not say which suppression list holds: {error}") from None


def open_suppressions(path: Path, rules: SuppressionRules) -> SqliteSuppressions:
    """The list at `path`, made if need be.  Raises `SuppressionError`."""
    return SqliteSuppressions(path, rules=rules, provider_of=known_providers().of)


def open_settings(settings: SuppressionSettings) -> SqliteSuppressions:
    """The list that `settings` name, made if need be.  Raises `SuppressionError`."""
    try:
        path = settings.path()
    except RuntimeError as error:
        hint = f"name a file with {VARIABLE}"
        raise SuppressionError(f"there is no place for the suppression list: {error}", hint=hint) from None
    return open_suppressions(path, settings.rules)


class ReadList:
    """What holds of the list while a mailing is loaded, or goes on; nothing is written to it.  Close it when done."""

    def __init__(self, store: SqliteSuppressions, policy: SuppressionPolicy) -> None:
        self._store = store
        self._index = SuppressionIndex(store, policy)

    @classmethod
    def open(cls, used: ListInUse | None) -> ReadList | None:
        """None while there is no such list.  Raises `SuppressionError` for one that cannot be read."""
        if used is None or not os.path.exists(used.file):
            return None
        store = open_suppressions(Path(used.file), used.rules)
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
