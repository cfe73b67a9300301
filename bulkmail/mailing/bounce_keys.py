"""The key that a run's `{bounce}` tokens are signed with, and the number by which they name the run."""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bulkmail.message.verp import TOKEN
from bulkmail.model.campaign import Campaign
from bulkmail.model.errors import ConfigError
from bulkmail.model.feedback_event import KnownRun, RunRegister
from bulkmail.model.keys import BounceKey, Keys
from bulkmail.model.relay import Secret
from bulkmail.outbox.ledger import state_folder
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.reader import OutboxReader

if TYPE_CHECKING:
    from bulkmail.suppression.store import SqliteSuppressions

RUN, KEY_ID = "bounce_run", "bounce_key"
"""Settings of an outbox: the run's number, and which key its tokens were made with."""

Register = Callable[[], AbstractContextManager[RunRegister]]


def suppressions_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the suppression list is, with its register of runs and its key."""
    from bulkmail.suppression.file import FILE_NAME, VARIABLE

    return Path(environ.get(VARIABLE) or state_folder(environ) / FILE_NAME)


def open_suppressions() -> SqliteSuppressions:
    """The suppression list.  Raises `SuppressionError`."""
    from bulkmail.suppression.store import SqliteSuppressions

    return SqliteSuppressions(suppressions_path())


def with_bounce_key(outbox: Outbox, keys: Keys, register: Register = open_suppressions) -> Keys:
    """`keys` with that of the tokens in the messages of `outbox`, whose run is registered; noted in the outbox.

    A campaign without `{bounce}` in its reverse path needs none, and a rehearsal registers nothing.  Raises
    `ConfigError` for a run that was begun with another key: its messages would be others.  Blocks.
    """
    campaign = outbox.campaign
    if campaign is None or outbox.is_rehearsal or TOKEN not in campaign.reverse_path or keys.bounce is not None:
        return keys
    with register() as runs:
        key = runs.token_key()
        noted, key_id = outbox.settings.get(RUN, ""), key_id_of(key)
        if noted and outbox.settings.get(KEY_ID) != key_id:
            raise ConfigError(
                f"the {TOKEN} tokens of this run were signed with the key of another suppression list:"
                " its messages would change",
                hint="set BULKMAIL_SUPPRESSIONS to the list that the run was begun with;"
                f" {suppressions_path()} is another",
            )
        run = runs.register(known_run(outbox, outbox.path))
    if not noted:
        outbox.set_setting(RUN, str(run.number))
        outbox.set_setting(KEY_ID, key_id)
    elif noted != str(run.number):
        raise ConfigError(
            f"the {TOKEN} tokens of this run name it as number {noted}, and the suppression list as {run.number}:"
            " its messages would change",
            hint="restore the suppression list that the run was begun with",
        )
    return replace(keys, bounce=BounceKey(run.number, Secret(key.hex())))


def known_run(outbox: Outbox | OutboxReader, path: Path | None = None) -> KnownRun:
    """What the register is told of a run, whose outbox is at `path`."""
    campaign = outbox.campaign
    return KnownRun(
        0,
        outbox.run_id,
        campaign=campaign.name if campaign is not None else "",
        list_id=_list_id(campaign),
        outbox=str(path or ""),
        began_at=outbox.started_at or time.time(),
    )


def _list_id(campaign: Campaign | None) -> str:
    """The id in List-Id where it is the same for all rows (RFC 2919), else empty."""
    text = campaign.list_id.text.strip() if campaign is not None and campaign.list_id is not None else ""
    if "{{" in text or "{%" in text:
        return ""
    return text.rpartition("<")[2].rstrip(">").strip().lower()


def key_id_of(key: bytes) -> str:
    """Tells keys apart and says nothing about them."""
    return hmac.digest(key, b"bulkmail bounce key id", "sha256")[:8].hex()
