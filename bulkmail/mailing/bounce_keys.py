"""The key that a run's `{bounce}` tokens are signed with, and the number by which they name the run."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from bulkmail.config.suppressions import load_suppressions
from bulkmail.mailing.suppression_list import open_settings, open_suppressions, recorded_list, scope_of
from bulkmail.message.verp import TOKEN
from bulkmail.model.errors import ConfigError
from bulkmail.model.feedback_event import KnownRun, RunRegister
from bulkmail.model.keys import BounceKey, Keys
from bulkmail.model.relay import Secret
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.reader import OutboxReader
from bulkmail.suppression.store import SqliteSuppressions

RUN, KEY_ID = "bounce_run", "bounce_key"
"""Settings of an outbox: the run's number, and which key its tokens were made with."""

Register = Callable[[Outbox], AbstractContextManager[RunRegister]]


def list_of_run(outbox: Outbox) -> SqliteSuppressions:
    """The suppression list that a run goes by, made if need be: its register of runs and its key are of that list.

    Raises `SuppressionError`.
    """
    used = recorded_list(outbox.settings)
    if used is None:
        return open_settings(load_suppressions())
    return open_suppressions(Path(used.file), used.rules)


def with_bounce_key(outbox: Outbox, keys: Keys, register: Register = list_of_run) -> Keys:
    """`keys` with that of the tokens in the messages of `outbox`, whose run is registered; noted in the outbox.

    A campaign without `{bounce}` in its reverse path needs none, and a rehearsal registers nothing.  Raises
    `ConfigError` for a run that was begun with another key: its messages would be others.  Blocks.
    """
    campaign = outbox.campaign
    if campaign is None or outbox.is_rehearsal or TOKEN not in campaign.reverse_path or keys.bounce is not None:
        return keys
    with register(outbox) as runs:
        key = runs.token_key()
        noted, key_id = outbox.settings.get(RUN, ""), key_id_of(key)
        if noted and outbox.settings.get(KEY_ID) != key_id:
            raise ConfigError(
                f"the {TOKEN} tokens of this run were signed with the key of another suppression list:"
                " its messages would change",
                hint="put the list back that the run was begun with, or import the archive of it where there is none",
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
        list_id=scope_of(campaign) or "",
        outbox=str(path or ""),
        began_at=outbox.started_at or time.time(),
    )


def key_id_of(key: bytes) -> str:
    """Tells keys apart and says nothing about them."""
    return hmac.digest(key, b"bulkmail bounce key id", "sha256")[:8].hex()
