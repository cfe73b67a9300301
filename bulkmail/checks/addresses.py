"""Addresses of links and pictures that lead nowhere from a mail, which has no folder and no server of its own."""

from __future__ import annotations

import re

from bulkmail.checks.leftovers import positions
from bulkmail.message.template.tags import PLACE
from bulkmail.model.address import parse_mailbox
from bulkmail.model.errors import AddressError
from bulkmail.model.pattern import lazy_pattern
from bulkmail.text import close_matches

_SCHEME = lazy_pattern(r"([A-Za-z][A-Za-z0-9+.-]*):")
_WEB = lazy_pattern(r"https?", re.IGNORECASE)
_NO_COLON = lazy_pattern(r"(?:https?|mailto|ftp)(?:[;,. ]?/{1,2}|[;,]|\s*:)", re.IGNORECASE)
_HOST = lazy_pattern(r"(?:[\w-]+\.)+([^\W\d_]{2,}|xn--[\w-]+)(?::\d+)?(?=[/?#]|$)")
_FILES = frozenset(
    ["asp", "aspx", "css", "gif", "htm", "html", "jpeg", "jpg", "js", "jsp", "pdf", "php", "png", "svg", "webp", "zip"]
)
# Other programs' ways to name what they fill in; in front of an address none of these begins one.
_FOREIGN = lazy_pattern(
    r"\*\|[^|]{1,60}\|\*|<%.{1,60}?%>|<<?[A-Za-z][\w .-]{0,60}>>?"
    r"|\{\$?[A-Za-z][\w .:|-]{0,60}\}|\$\{?[A-Za-z]\w{0,60}\}?"
    r"|\[\[?[A-Za-z][\w .:|-]{0,60}\]?\]|##?[A-Za-z][\w.-]{0,60}##?(?=$)|@@\w{1,60}@@|~\w{1,60}~|«[^»]{1,60}»"
    r"|%%?[A-Za-z][\w.-]{1,60}%%?|%[A-Za-z_]\w{1,60}\|?[^%]{0,20}%"
)
_ENCODED = lazy_pattern(r"%[0-9A-Fa-f]{2}")
_INNER = lazy_pattern(r"%([A-Za-z_][\w.-]{2,60})%")


def placeholder_in(value: str) -> str:
    """What another program was to fill in, as it stands in the value of an attribute; empty if nothing is left."""
    found = _FOREIGN.match(value)
    if found and found[0] not in ("#", "$") and not (found[0].startswith("#") and not found[0].endswith("#")):
        return found[0]
    known = positions(value)
    if known:
        return known[0][1]
    return next((each[0] for each in _INNER.finditer(value) if not _ENCODED.match(each[0])), "")


def dead(value: str) -> str:
    """Why a link leads nowhere, as a predicate; empty for one that may lead somewhere.

    `value` may be of a template whose tags are masked: what only the row decides is not judged.
    """
    value = value.strip()
    head = PLACE.split(value)[0]
    is_whole = head == value
    if not head or head.startswith("#"):
        return ""
    if not is_whole and not re.search(r"[:/?#]", head) and not head.lower().startswith("www."):
        return ""
    scheme = _SCHEME.match(head)
    if scheme and "." not in scheme[1] and scheme[1].lower() != "localhost":
        return _scheme_fault(scheme[1], head[scheme.end() :], is_whole=is_whole)
    if _NO_COLON.match(head):
        return "has no colon and two slashes after its scheme"
    if head.startswith("//"):
        return "lacks https: at the start"
    if is_whole and "@" in head and _is_mailbox(head):
        return "is an address without mailto: at the start"
    host = _HOST.match(head)
    if head.lower().startswith("www.") or (host and host[1].lower() not in _FILES):
        return "lacks https:// at the start"
    return "is relative, and a message has no base address"


def _scheme_fault(scheme: str, rest: str, *, is_whole: bool) -> str:
    name = scheme.lower()
    if _WEB.fullmatch(name):
        if not rest.startswith("//") and (is_whole or rest[:2].strip("/")):
            return f"has no two slashes after {name}:"
        host = re.split(r"[/?#]", rest[2:], maxsplit=1)[0]
        if is_whole and (not host or not host.strip(".:")):
            return "names no host"
        if is_whole and re.search(r"\s", host):
            return "has a space in the name of its host"
        if _WEB.fullmatch(host.rstrip(":")) and (host.endswith(":") or rest[2 + len(host) :].startswith("//")):
            return "has its scheme twice"
        return ""
    if name == "mailto":
        first = re.split(r"[,?]", rest, maxsplit=1)[0]
        if is_whole and not rest.strip():
            return "has no address after mailto:"
        if is_whole and first and not ("@" in first and _is_mailbox(first.replace("%40", "@"))):
            return "is not an address after mailto:"
        return ""
    if name in ("tel", "sms") and is_whole and not re.search("[0-9?;]", rest):
        return f"has no number after {name}:"
    if len(name) == 1:
        return "is a file on your own computer"
    if name not in ("tel", "sms", "ftp") and close_matches(name, ("https", "http", "mailto"), cutoff=0.8):
        return f"begins with {scheme}:, which is not a URL scheme"
    return ""


def _is_mailbox(text: str) -> bool:
    try:
        parse_mailbox(text)
    except AddressError:
        return False
    return True
