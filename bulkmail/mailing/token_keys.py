"""The keys of a run's tokens: those in reverse paths, and those in links to unsubscribe."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bulkmail.feedback.matching import VerifyUnsubscribe
from bulkmail.mailing.suppression_sources import is_there, list_in_use, open_used, scope_of
from bulkmail.message.unsubscribe import read_unsubscribe
from bulkmail.message.verp import TOKEN
from bulkmail.model.campaign import BounceKey, Keys
from bulkmail.model.errors import BulkmailError, ConfigError, SuppressionError
from bulkmail.model.feedback_event import KnownRun
from bulkmail.model.recipient import Address
from bulkmail.model.relay import Secret, commands_of
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.settings.secrets import find_keys
from bulkmail.settings.suppressions import load_suppressions

if TYPE_CHECKING:
    from bulkmail.feedback.matching import VerifyUnsubscribe  # reads mail: not for a run

RUN, KEY_ID = "bounce_run", "bounce_key"
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


def known_run(outbox: Outbox | OutboxReader, path: Path | None = None) -> KnownRun:
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
