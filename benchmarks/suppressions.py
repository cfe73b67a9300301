"""A large suppression list and a provider's mistake, beside the bars: python benchmarks/suppressions.py

A million entries are imported, their file is weighed, and a run's look-up is loaded; then one provider refuses 10,000
addresses of a run within ten minutes as unknown.  Times are of the processor, so that other work does not count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bulkmail.model.feedback_event import FeedbackEvent, FeedbackKind, KnownRun, Proof
from bulkmail.model.suppression import SuppressionPolicy
from bulkmail.suppression.file import SqliteSuppressions
from bulkmail.suppression.index import SuppressionIndex
from bulkmail.suppression.ports import Addition, EntryQuery

REFUSALS = 10_000
AT_ONCE = 50


def measure_size(file: Path, entries: int) -> None:
    """Imports, weighs and loads."""
    additions = (Addition(f"person.{n}@mail{n % 500}.example.org") for n in range(entries))
    with SqliteSuppressions(file) as store:
        began = time.process_time()
        store.import_(additions, why="benchmark")
        imported = time.process_time() - began
    with SqliteSuppressions(file) as store:
        began = time.process_time()
        index = SuppressionIndex(store, SuppressionPolicy())
        loaded = time.process_time() - began
        began = time.process_time()
        for number in range(100_000):
            index.reason(f"other.{number}@mail{number % 500}.example.org")
        looked_up = time.process_time() - began
    print(
        f"{len(index):,} entries: imported in {imported:.1f} s, {file.stat().st_size / 1e6:.0f} MB (bar 150), loaded in"
        f" {loaded:.1f} s (bar 3), {looked_up * 10:.1f} µs for a recipient that is not there"
    )


def measure_mistake(file: Path) -> None:
    """A provider refuses everyone."""
    now = time.time()
    with SqliteSuppressions(file, provider_of=lambda domain: "google") as store:
        store.register(KnownRun(0, "run", campaign="spring", outbox="/nowhere", began_at=now - 600))
        began = time.process_time()
        for first in range(0, REFUSALS, AT_ONCE):
            at = now - 600 + 600 * first / REFUSALS
            store.note_sent("run", {"google": AT_ONCE}, at=at)
            store.record([_refusal(number, at) for number in range(first, first + AT_ONCE)])
        took = time.process_time() - began
        found = store.mistakes()
        print(
            f"{REFUSALS:,} refusals of one provider in ten minutes: {store.count(EntryQuery())} suppressed (bar 0),"
            f" {len(found)} finding (bar 1) with {sum(each.held for each in found):,} held, {took:.1f} s"
        )


def _refusal(number: int, at: float) -> FeedbackEvent:
    return FeedbackEvent(
        f"refusal {number}",
        FeedbackKind.HARD,
        at,
        Proof.SMTP,
        forward_path=f"p{number}@gmail.com",
        run_id="run",
        campaign="spring",
        reason="unknown-user",
        code=550,
        enhanced="5.1.1",
        words="The email account that you tried to reach does not exist",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bulkmail-suppressions-") as folder:
        measure_size(Path(folder) / "large.db", asked.entries)
        measure_mistake(Path(folder) / "mistake.db")


if __name__ == "__main__":
    main()
