"""Makes rows, marks and outcomes to fill an outbox with."""

from __future__ import annotations

from bulkmail.model.delivery import AttemptResult, Delivery, Mark, Settlement, settle
from bulkmail.model.outcome import Breakage, Fault, Reply, Stage
from bulkmail.model.recipient import Address, BadRow, Place, Recipient
from bulkmail.model.retry import RetryPolicy
from bulkmail.model.tally import Status
from bulkmail.model.verdict import judge
from bulkmail.outbox.outbox import Entry, Outbox

OK = Reply(Stage.END, 250, "2.0.0", "Ok: queued as 4WxYz1")
BUSY = Reply(Stage.RCPT, 450, "4.2.1", "try again later")
LOST = Fault(Stage.END, Breakage.LOST, "the connection ended")
UNKNOWN = Reply(Stage.RCPT, 550, "5.1.1", "no such user")


def make_recipient(number: int = 1, **changes: object) -> Recipient:
    values: dict[str, object] = {
        "address": Address(f"user{number}", "example.org"),
        "name": f"User {number}",
        "fields": {"email": f"user{number}@example.org", "n": str(number)},
        "place": Place("people.csv", number + 1),
    }
    return Recipient(**(values | changes))  # type: ignore[arg-type]


def make_entries(count: int, **changes: object) -> list[Entry]:
    return [Entry(make_recipient(n), **changes) for n in range(1, count + 1)]  # type: ignore[arg-type]


def make_bad_row(line: int = 7) -> BadRow:
    return BadRow("the address is empty", {"email": ""}, Place("people.csv", line))


def make_mark(delivery: Delivery | int, *, digest: bytes = b"0123456789abcdef", first_at: float = 1000.0) -> Mark:
    number = delivery if isinstance(delivery, int) else delivery.id
    return Mark(number, f"<{number}@example.org>", first_at, digest)


def make_settlement(
    delivery: Delivery,
    event: Reply | Fault = OK,
    *,
    at: float = 1000.0,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 (frozen)
) -> Settlement:
    attempt = AttemptResult(at, 0.5, "smtp://relay.example.org:587", event, judge(event))
    return Settlement(settle(delivery, attempt, policy, jitter=0.5), attempt)


def due(outbox: Outbox, now: float = 0.0, *, limit: int = 10_000, excluding: object = ()) -> list[Delivery]:
    return [job.delivery for job in outbox.due(now, limit=limit, excluding=excluding)]  # type: ignore[arg-type]


def send(outbox: Outbox, delivery: Delivery, event: Reply | Fault = OK, *, at: float = 1000.0) -> None:
    """One whole attempt: mark, then outcome."""
    outbox.write([make_mark(delivery)])
    outbox.write([make_settlement(delivery, event, at=at)])


def statuses(outbox: Outbox) -> dict[Status, int]:
    return dict(outbox.tally().by_status)


def fill(outbox: Outbox, entries: list[Entry]) -> Outbox:
    outbox.record(entries)
    outbox.finish_loading()
    return outbox
