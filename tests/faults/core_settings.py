"""The four settings of the core that no promise may depend on, and which of them a test runs in.

The usual turn of replies is matched, or each reply is read by the table; one process composes and sends, or a second
one composes.  Each test of this folder draws one of the four by its name and `BULKMAIL_SEED`, which the head of
pytest's report names.  `TESTED_CORE` names one for all tests: `turn-one`, `table-one`, `turn-two` or `table-two`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bulkmail.mailing import composing
from bulkmail.smtp.protocol import Protocol
from tests.chance import chance

SETTINGS = ("turn-one", "table-one", "turn-two", "table-two")
WAY = Path(__file__).parent / "way"


def setting_of(name: str) -> str:
    """The setting of the test of this name."""
    return os.environ.get("TESTED_CORE") or chance(f"core {name}").choice(SETTINGS)


def enter(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts this process, and those that it starts as `bulkmail`, into `setting`."""
    monkeypatch.setattr(Protocol, "matches_turns", "table" not in setting)
    monkeypatch.setattr(composing, "MANY", 1 if "two" in setting else 1 << 62)
    monkeypatch.setenv("TESTED_CORE", setting)
