"""Texts that were to be replaced before the message went out, damaged cells, addresses that lead nowhere."""

from __future__ import annotations

import html.entities
import re

from bulkmail.message.template.tags import PLACE
from bulkmail.model.errors import AddressError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import parse_mailbox
from bulkmail.text import close_matches, printable

_LONGEST = 40  # characters of what is quoted

# What columns are called where programs leave a place for them: `[First Name]` is one, `[optional]` is not.
_KIND = (
    r"(?:your|the|first|last|full|middle|given|family|nick|user|customer|client|company|contact|recipient|member|guest"
    r"|event|product|course|order|invoice|street|billing|shipping)[ _-]?"
)
_THING = (
    r"(?:names?|firstname|lastname|surname|fname|lname|e-?mail(?:[ _-]?address)?|salutation|company|vorname|nachname"
    r"|phone(?:[ _-]?number)?|order[ _-]?(?:id|no|number)|due[ _-]?date|anrede|firma|prénom|nom|nombre|apellidos?)"
)
_FIELD = rf"(?i:(?:{_KIND})?{_THING})"
_ANY = r"[A-Za-z\u00c0-\u024f](?:[\w .-]{0,38}\w)?"

ANGLES = lazy_pattern(rf"<<{_ANY}>>")

# The brackets in the words keep this file from being found by searches for what is left to do.
_LEFTOVER = lazy_pattern(
    r"\{\{.{0,60}?(?:\}\}|$)"
    r"|\{%.{0,60}?(?:%\}|$)"
    r"|(?i:lorem\s+ipsum)"
    r"|\b(?:TO[D]O|FIX[M]E|XX[X])\b"
    r"|\*\|\w+\|\*"  # other programs' ways to name a column
    rf"|%%{_ANY}%%|(?<![\w%])%{_FIELD}%(?!\w)"
    r"|\$\{\w+\}"
    r"|\[\[\w+\]\]"
    rf"|\[{_FIELD}\](?![(\[:])"  # not a link in Markdown
    rf"|(?<![{{$#]){{(?i:{_KIND}{_THING})}}(?!}})"
    rf"|{ANGLES.pattern}|&lt;&lt;{_ANY}&gt;&gt;"
    rf"|[«‹](?:{_FIELD}|\w+_\w+)[»›]"
    r"|\[object \w+\]",
    re.MULTILINE,
)
_LOREM = lazy_pattern(r"\blorem\b", re.IGNORECASE)

# What UTF-8 becomes when a program takes it for Windows-1252: a sign between À and ß or a â, and what its second byte
# is there.  Quotes and dashes do stand behind a capital letter; within a word they do not.
_SECOND = r"[\x80-\xbf€‚ƒ„†‡ˆ‰Š‹ŒŽ•˜™š›œžŸ]"
_SECOND_1251 = "[Ѐ-Џѐ-џҐґ\xa0-\xbf‚„…†‡€‰‹‘’“”•–—™›№]"
_TYPOGRAPHIC = r"[‘’“”–—…](?=\w)"
_DAMAGE = lazy_pattern(
    r"\ufffd"
    rf"|Ã(?:{_SECOND}|{_TYPOGRAPHIC})"
    r"|Â[\xa0-\xbf]"
    r"|[ÄÅ](?:[\x80-\x9f¤¥¦§±¼½¾‚ƒ„†‡ˆ‰Š‹ŒŽ˜™š›œžŸ](?=[a-zß-ÿ])|[\x80-\x9f])"
    r"|â(?:€.|‚¬)|ðŸ"
    rf"|(?:[ÐÑ]{_SECOND}){{2}}|(?:[ÎÏ]{_SECOND}){{2}}"  # Cyrillic and Greek letters
    rf"|(?:[РС]{_SECOND_1251}){{2}}|(?<=[A-Za-z])Г{_SECOND_1251}"  # taken for Windows-1251
    r"|[├┬][^\s\w─━│]|[├┬][ñöäåæçéèêëíìîïóòôõúùûüßÑÖÄÅÆÇÉ]|(?:[╨╤]\S){2}"  # for that of DOS
    r"|√[\xa0-\xffºøŒœ∂∆π∏](?=\w)"  # for that of a Mac
    r"|[\x80-\x9f]|(?<=[A-Za-z])[¸‚„](?=[A-Za-z])"
    r"|\\u[0-9A-Fa-f]{4}|=C3=[89AB][0-9A-F]|=\?[\w-]+\?[qQbB]\?[^?\s]*\?="
    r"|\A[^/=&:\n]*%C3%[89ABab][0-9A-Fa-f][^/=&:\n]*\Z"
    r"|\A[^/=&:\n]*(?<=[A-Za-z])\?(?=[a-z])[^/=&:\n]*\Z"
    r"|&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z]{2,8}\d?);"
    r"|\A[-+]?\d(?:[.,]\d+)?E\+\d{1,3}\Z"
    r"|\A#{3,}\Z"
    r"|\A'[\d=+@-]"  # how a spreadsheet marks a number as text
)
ODD_CELLS = frozenset(
    {
        "", "null", "NULL", "(null)", "<null>", "<NULL>", "undefined", "nan", "NaN", "NaT", "<NA>", "None", "N/A",
        "n/a",
        "#N/A", "#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!", "#SPILL!", "#CALC!", "#NV", "#WERT!",
        "#BEZUG!", "#ZAHL!",
    }
)  # fmt: skip
"""Nothing, and what programs write where they have nothing to write.  `Null` is a family name."""

# One of these is in every leftover, and in every damaged cell.  Nearly every cell has none, and looking for plain texts
# takes a hundredth of the time of the patterns.
_SIGNS = ("{", "%", "$", "*", "[", "X", "TO", "FIX", "<<", "&", "«", "‹")
_SIGNS_OF_DAMAGE = ("\\u", "=C3", "%C3", "?", "&", "E+", "##", "'")
_FOREIGN_SIGNS_OF_DAMAGE = (
    *("\ufffd", "Ã", "Â", "Ä", "Å", "â€", "â‚", "ðŸ", "Ð", "Ñ", "Î", "Ï", "Р", "С", "Г", "├", "┬", "╨", "╤", "√"),
    *("¸", "‚", "„", *map(chr, range(0x80, 0xA0))),
)


def _may_have_leftover(text: str) -> bool:
    return any(map(text.__contains__, _SIGNS)) or "lorem" in text.lower()


def _may_be_damaged(text: str) -> bool:
    signs = _SIGNS_OF_DAMAGE if text.isascii() else (*_SIGNS_OF_DAMAGE, *_FOREIGN_SIGNS_OF_DAMAGE)
    return any(map(text.__contains__, signs))


def leftover(text: str) -> str:
    """The first leftover in `text` as it stands there, shortened; empty if there is none."""
    if not _may_have_leftover(text):
        return ""
    found = _LEFTOVER.search(text) or _LOREM.search(text)
    return printable(found[0], _LONGEST) if found else ""


def damage(cell: str) -> str:
    """The first sign in a cell that a program has damaged it, shortened; empty if there is none."""
    if not _may_be_damaged(cell):
        return ""
    for found in _DAMAGE.finditer(cell):
        if found[0][0] != "&" or found[0][1] == "#" or found[0][1:] in html.entities.html5:
            return printable(found[0], _LONGEST) or ascii(found[0])[1:-1] if found[0] != "\ufffd" else found[0]
    return ""


def is_worth_a_look(text: str) -> bool:
    """Whether there may be a leftover or damage in `text`, all the cells of a row."""
    return _may_have_leftover(text) or _may_be_damaged(text)


def positions(text: str) -> list[tuple[int, str]]:
    """Every leftover in `text`, and every damaged message, with where it begins."""
    found = {match.start(): printable(match[0], _LONGEST) for match in _LEFTOVER.finditer(text)}
    found |= {match.start(): match[0] for match in _LOREM.finditer(text) if match.start() not in found}
    for match in _DAMAGE.finditer(text):
        if match[0][0] not in "&-+0123456789#'":  # an entity is what pages are made of
            found.setdefault(match.start(), match[0])
    return sorted(found.items())


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
