"""Variable envelope return paths: what a bounce is about, inside the address that it comes back to."""

from __future__ import annotations

import re
from functools import lru_cache

from bulkmail.model.address import LONGEST_ADDRESS, LONGEST_LOCAL_PART, Address
from bulkmail.model.errors import AddressError
from bulkmail.model.lazy_dataclass import dataclass

PLACEHOLDER = "{verp}"
"""The address that is written to: anyone can read and write it."""

TOKEN = "{bounce}"  # noqa: S105 - the name of a placeholder
"""A short token of `bounce_token`: no one else can make one."""


SIGNS = "-+=._"
"""What may stand between the parts of a local part."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """`bounces+{verp}@example.com` taken apart.  `plain` is the address without what makes it one person's.

    `has_token`: it is a token that stands there, `{bounce}`, and not the address.
    """

    before: str
    after: str
    domain: str
    plain: str
    has_token: bool = False

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Raises `AddressError` when it is no address with one placeholder before the @, and something beside it.

        A token needs a sign of `+-=._` or nothing on either side, or it could not be found again.
        """
        local, _, domain = text.rpartition("@")
        placeholder = TOKEN if TOKEN in text else PLACEHOLDER
        if local.count(placeholder) != 1 or placeholder in domain:
            raise AddressError(f"has {placeholder} elsewhere than once before the @")
        if placeholder is TOKEN and PLACEHOLDER in text:
            raise AddressError(f"has both {TOKEN} and {PLACEHOLDER}; keep {TOKEN}, which tells more")
        before, after = local.split(placeholder)
        if placeholder is TOKEN and not (before[-1:] in SIGNS and after[:1] in SIGNS):
            raise AddressError(f"has a letter or digit right beside {TOKEN}; write bounces+{TOKEN}@example.com")
        plain = Address.parse(without(text, placeholder))
        Address.parse(f"{before}a=b.example{after}@{domain}")
        return cls(before, after, plain.domain, plain.wire, placeholder is TOKEN)

    def fill(self, forward_path: str, token: str = "") -> str:
        """`bounces+ann=example.org@example.com`; `plain` where that would be longer than a path may be."""
        local, _, domain = forward_path.rpartition("@")
        filled = f"{self.before}{token if self.has_token else f'{local}={domain}'}{self.after}"
        size = len(filled.encode())
        is_too_long = size > LONGEST_LOCAL_PART or size + 1 + len(self.domain) > LONGEST_ADDRESS
        return self.plain if is_too_long else f"{filled}@{self.domain}"

    def take(self, reverse_path: str) -> Address | None:
        """The address that `fill` put in; None when there is none."""
        local, _, domain = reverse_path.strip().rpartition("@")
        lowered, before, after = local.lower(), self.before.lower(), self.after.lower()
        has_room = len(local) > len(before) + len(after)
        if not (has_room and domain.lower() == self.domain and lowered.startswith(before) and lowered.endswith(after)):
            return None
        user, _, host = local[len(before) : len(local) - len(after)].rpartition("=")
        try:
            return Address.parse(f"{user}@{host}")
        except AddressError:
            return None


@lru_cache(maxsize=1024)
def parse_pattern(text: str) -> Pattern:
    """`Pattern.parse`, remembered: nearly always it is the same for everyone."""
    return Pattern.parse(text)


def decode_verp(reverse_path: str, pattern: str) -> Address | None:
    """Who a bounce to `reverse_path` is about, `pattern` being the campaign's setting; None when that cannot be told.

    Anyone can write to such an address: believe a bounce only as far as its content does.  Raises `ValueError` for a
    pattern that is none.
    """
    return parse_pattern(pattern).take(reverse_path)


def without(pattern: str, placeholder: str) -> str:
    """`bounces@example.com` of `bounces+{verp}@example.com`: the signs beside the placeholder go with it."""
    return re.sub(rf"[{SIGNS}]*{re.escape(placeholder)}[{SIGNS}]*", "", pattern, count=1)
