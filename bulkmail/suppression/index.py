"""Looking millions of recipients up in the list without asking its file for each."""

from __future__ import annotations

import sys
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable

from bulkmail.model.suppression import SuppressionPolicy
from bulkmail.suppression.ports import PREFIX_BYTES, SuppressionStore


class SuppressionIndex:
    """What `policy` applies of the list in `store`, as it was when it was made or last refreshed.

    Keeps 8 bytes of each digest: a million entries take 8 MB, and the file is asked only for what is found by them.
    """

    def __init__(
        self, store: SuppressionStore, policy: SuppressionPolicy, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self._domains: dict[str, str] = {}
        self._prefixes = array("Q")
        self.seq = 0  # of the latest change that it knows
        self.refresh()

    def refresh(self) -> None:
        """Reads the list again."""
        self.seq, prefixes = self._store.applied(self._policy, self._clock())
        self._prefixes = array("Q", prefixes)
        if sys.byteorder == "little":
            self._prefixes.byteswap()  # digests are in the order of their bytes, the first one counting most
        self._domains = {}

    def __len__(self) -> int:
        return len(self._prefixes)

    def reason(self, key: str) -> str:
        """Why there is no mail to an address, given by its `Address.key`; empty if there may be."""
        if not self._prefixes:
            return ""
        return self._reason(key) or self._domain_reason(key.rpartition("@")[2])

    def applies(self, key: str) -> bool:
        """Whether there is an entry for this very `Address.key` or `@domain`."""
        return bool(self._reason(key))

    def _domain_reason(self, domain: str) -> str:
        reason = self._domains.get(domain)
        if reason is None:
            reason = self._domains[domain] = self._reason(f"@{domain}")
        return reason

    def _reason(self, key: str) -> str:
        digest = self._store.digest(key)
        prefix = int.from_bytes(digest[:PREFIX_BYTES])
        place = bisect_left(self._prefixes, prefix)
        if place == len(self._prefixes) or self._prefixes[place] != prefix:
            return ""
        return self._store.reason(digest, self._policy, self._clock())
