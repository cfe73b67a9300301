"""Chance for tests of faults: the same each time, and another by BULKMAIL_SEED."""

from __future__ import annotations

import os
import random

SEED = int(os.environ.get("BULKMAIL_SEED", "0"))  # the header of a test run names it


def chance(name: str) -> random.Random:
    """The chance of the test of this name."""
    return random.Random(f"{SEED} {name}")
