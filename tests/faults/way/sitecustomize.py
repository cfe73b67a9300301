"""Puts a process that a test starts into the test's setting of the core; see `tests/faults/core_settings.py`."""

import os

if os.environ.get("TESTED_CORE"):
    from bulkmail.mailing import composing
    from bulkmail.smtp.protocol import Protocol

    Protocol.matches_turns = "table" not in os.environ["TESTED_CORE"]
    composing.MANY = 1 if "two" in os.environ["TESTED_CORE"] else 1 << 62
