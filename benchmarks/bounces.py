"""How many bounces are read right: python benchmarks/bounces.py MAILS TRUTH

MAILS is a folder of mails (NAME.eml), TRUTH a file of JSON lines, one for each of them:
{"file": "NAME", "facts": [{"recipient": "a@b.example", "alias": "", "reason": "userunknown", "hard": 1}, ...]}.
The names end in a number: the words of data/bounces.toml were made on the even ones, so that the odd ones measure them.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bulkmail.feedback.classify import classify
from bulkmail.feedback.mime import take_apart
from bulkmail.feedback.notice import Notice, read_notices
from bulkmail.model.feedback_event import FeedbackKind

UNDECIDED = {"filtered", "onhold", "undefined"}  # reasons that say neither
NO_BOUNCE = {"feedback", "vacation"}


def names_of(notice: Notice) -> set[str]:
    return {each.lower() for each in (notice.address, notice.other) if each}


def measure(data: bytes, facts: list[dict[str, Any]], tally: Counter[str]) -> None:
    notices = read_notices(take_apart(data))
    wanted = [{each["recipient"].lower(), each["alias"].lower()} - {""} for each in facts]
    named = [names_of(notice) for notice in notices.recipients]
    everyone = set().union(*wanted)
    has_all = all(any(names & each for names in named) for each in wanted)
    tally["mails"] += 1
    tally["address"] += has_all and all(names & everyone for names in named)
    for fact, who in zip(facts, wanted, strict=True):
        if fact["reason"] in UNDECIDED:
            continue
        found = next((notice for notice in notices.recipients if names_of(notice) & who), None)
        if found is None and len(facts) == len(notices.recipients) == 1:
            found = notices.recipients[0]
        is_hard = found is not None and classify(found, notices.text).kind is FeedbackKind.HARD
        side = "hard" if fact["hard"] else "not hard"
        tally[side] += 1
        tally["right"] += is_hard == bool(fact["hard"])
        tally["missed" if fact["hard"] else "false"] += is_hard != bool(fact["hard"])


def main() -> None:
    folder, truth = Path(sys.argv[1]), Path(sys.argv[2])
    halves: dict[str, Counter[str]] = {"even": Counter(), "odd": Counter()}
    began = time.perf_counter()
    for line in truth.read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        facts = [each for each in told["facts"] if each["reason"] not in NO_BOUNCE]
        path = folder / f"{Path(told['file']).name}.eml"
        number = path.stem.rpartition("-")[2]
        if facts and path.exists() and number.isdecimal():
            measure(path.read_bytes(), facts, halves["odd" if int(number) % 2 else "even"])
    took = time.perf_counter() - began
    for name, tally in halves.items():
        decided = tally["hard"] + tally["not hard"]
        print(
            f"{name}: {tally['mails']} mails, address right {tally['address'] / max(1, tally['mails']):.1%};"
            f" hard or not right {tally['right'] / max(1, decided):.1%},"
            f" false hard {tally['false'] / max(1, tally['not hard']):.1%},"
            f" hard missed {tally['missed'] / max(1, tally['hard']):.1%}"
        )
    print(f"{sum(tally['mails'] for tally in halves.values()) / max(took, 1e-9):.0f} mails a second")


if __name__ == "__main__":
    main()
