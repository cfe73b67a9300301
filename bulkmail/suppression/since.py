"""What is known by now of the addresses that a run wrote to: by what came back of it, and by the list."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping

from bulkmail.model.feedback_event import FeedbackKind
from bulkmail.model.suppression import SuppressionReason

_ENTRIES = """
    SELECT digest, reason FROM entry
    WHERE (until IS NULL OR until > ?) AND reason IN (SELECT value FROM json_each(?))
"""
_EVENTS = """
    SELECT v.digest, v.counts_as FROM event AS v JOIN run AS r ON r.number = v.run
    WHERE r.run_id = ? AND v.digest IS NOT NULL AND NOT v.held AND v.counts_as IN (SELECT value FROM json_each(?))
"""


def known_since(
    connection: sqlite3.Connection,
    run_id: str,
    *,
    kinds: Mapping[FeedbackKind, str],
    reasons: Mapping[SuppressionReason, str],
    now: float,
) -> dict[bytes, str]:
    """The digests of addresses and domains of which something came back from the run that counts as one of these kinds,
    or which are on any list for one of these reasons at `now` (wall clock), each with the word for it.
    """
    by_kind = {kind.value: said for kind, said in kinds.items()}
    by_reason = {reason.value: said for reason, said in reasons.items()}
    entries = connection.execute(_ENTRIES, (now, json.dumps(list(by_reason))))
    found = {bytes(digest): by_reason[reason] for digest, reason in entries}
    events = connection.execute(_EVENTS, (run_id, json.dumps(list(by_kind))))
    return found | {bytes(digest): by_kind[kind] for digest, kind in events}
