"""Verifying the unsubscribe tokens that come in by mail, with the keys of the runs that wrote them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from bulkmail.feedback.matching import VerifyUnsubscribe
from bulkmail.message.unsubscribe import read_unsubscribe
from bulkmail.model.address import Address
from bulkmail.model.errors import BulkmailError, ConfigError
from bulkmail.model.feedback_event import KnownRun
from bulkmail.model.relay import Secret
from bulkmail.outbox.reader import OutboxReader
from bulkmail.settings.keys import find_keys


def verifier_of(
    runs: Callable[[], Iterable[KnownRun]],
    told: Callable[[str], None],
    *,
    served: Callable[[], Iterable[Secret]] = lambda: (),
) -> VerifyUnsubscribe:
    """Verifies tokens with the keys that [serve] names and the campaigns of `runs` do; they are looked up when the
    first token comes.

    `served` gives those of [serve], of which a command may be the source; it may raise `ConfigError`.  `told` gets a
    sentence about each key that cannot be had.
    """
    return _Verifier(runs, told, served)


class _Verifier:
    def __init__(
        self,
        runs: Callable[[], Iterable[KnownRun]],
        told: Callable[[str], None],
        served: Callable[[], Iterable[Secret]],
    ) -> None:
        self._runs = runs
        self._told = told
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
            self._told(f"unsubscribe requests by mail cannot be verified with the keys of [serve]: {error}")
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
                if place.startswith("command:"):
                    if not served:
                        self._told(
                            f"unsubscribe requests by mail for {campaign.name!r} cannot be verified: its key comes from"
                            " a command, which intake does not run; name it with key_command below [serve]"
                        )
                    continue
                try:
                    key = find_keys(replace(campaign, dkim=())).unsubscribe
                except ConfigError as error:
                    self._told(f"unsubscribe requests by mail for {campaign.name!r} cannot be verified: {error}")
                    continue
                places[place] = key.reveal() if key is not None else ""
        return tuple(dict.fromkeys([*served, *(key for key in places.values() if key)]))
