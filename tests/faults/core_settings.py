"""The four settings of the core that no promise may depend on, and which of them a test runs in.

The usual turn of replies is matched, or each reply is read by the table; one process composes and sends, or a second
one composes.  Each test of this folder draws one of the four by its name and a seed, which the head of pytest's report
names.  `TESTED_SEED=N` draws as that run did; `TESTED_CORE` names one for all tests:
`turn-one`, `table-one`, `turn-two` or `table-two`.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from bulkmail.mailing import composing
from bulkmail.smtp.protocol import Protocol

SETTINGS = ("turn-one", "table-one", "turn-two", "table-two")
WAY = Path(__file__).parent / "way"


def draw_seed() -> str:
    """The seed of this run; processes that it starts have the same."""
    return os.environ.setdefault("TESTED_SEED", str(random.randrange(10_000)))


def setting_of(name: str) -> str:
    """The setting of the test of this name."""
    return os.environ.get("TESTED_CORE") or random.Random(f"{draw_seed()} {name}").choice(SETTINGS)


def enter(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts this process, and those that it starts as `bulkmail`, into `setting`."""
    monkeypatch.setattr(Protocol, "matches_turns", "table" not in setting)
    monkeypatch.setattr(composing, "MANY", 1 if "two" in setting else 1 << 62)
    monkeypatch.setenv("TESTED_CORE", setting)
