"""How many examples the properties get that everything else pauses on."""

from __future__ import annotations

import os

from hypothesis import settings

IN_CI = bool(os.environ.get("CI"))

many = settings(max_examples=int(os.environ.get("BULKMAIL_EXAMPLES", "2000" if IN_CI else "100")))
"""For what is said on the wire, and for the bytes of a message: 2,000 in CI, or as many as `BULKMAIL_EXAMPLES` says."""
