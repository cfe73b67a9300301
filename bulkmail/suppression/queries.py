"""Conditions in SQL: which entries a query means, and which of them a campaign applies."""

from __future__ import annotations

from typing import Any

from bulkmail.model.suppression import ALL_LISTS, SuppressionPolicy, SuppressionReason
from bulkmail.suppression.ports import EntryQuery


def applies(policy: SuppressionPolicy, now: float) -> tuple[str, dict[str, object]]:
    """The condition for the entries `e` that `policy` applies at `now`, with its values."""
    reasons = [reason.value for reason in SuppressionReason if reason in policy.reasons]
    names = {f"reason{number}": reason for number, reason in enumerate(reasons)}
    listed = ", ".join(f":{name}" for name in names) or "NULL"
    condition = f"e.reason IN ({listed}) AND (e.until IS NULL OR e.until > :now)"
    values: dict[str, object] = {**names, "now": now}
    if policy.list_id is not None:
        condition += " AND e.scope IN (:all, :list)"
        values |= {"all": ALL_LISTS, "list": policy.list_id}
    return condition, values


def meant(query: EntryQuery) -> tuple[str, dict[str, Any]]:
    """`FROM … WHERE …` for the entries that `query` means, with its values."""
    conditions, values = ["true"], dict[str, Any]()
    for condition, name, value in (
        ("e.reason = :reason", "reason", query.reason.value if query.reason else None),
        ("e.since >= :since", "since", query.since),
        ("e.since < :to", "to", query.to),
        ("r.campaign = :campaign", "campaign", query.campaign or None),
        ("r.run_id = :run_id", "run_id", query.run_id or None),
        ("v.provider = :provider", "provider", query.provider or None),
    ):
        if value is not None:
            conditions.append(condition)
            values[name] = value
    joins = "LEFT JOIN event AS v ON v.id = e.event LEFT JOIN run AS r ON r.number = v.run"
    return f"FROM entry AS e {joins} WHERE {' AND '.join(conditions)}", values
