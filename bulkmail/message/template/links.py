"""Addresses that a message may link to: what a cell holds must not become a script, nor add an attribute."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from jinja2 import TemplateRuntimeError
from markupsafe import Markup

from bulkmail.message.attachments.drawing import PictureAddress
from bulkmail.message.html.local_files import PICTURE_TAG
from bulkmail.message.html.scanner import Patches, elements
from bulkmail.message.template.numbers import Refused
from bulkmail.message.template.strictness import printed
from bulkmail.message.template.tags import PLACE, Masked, Tag, TagKind
from bulkmail.model.lazy import lazy_pattern
from bulkmail.text import printable

FILTER = "link"
SCHEMES = ("http", "https", "mailto", "tel", "sms")

_ADDRESSES = frozenset({"href", "src", "action", "formaction", "background", "cite", "data", "longdesc", "poster"})
_SCHEME = lazy_pattern(r"([^:/?#]*):")
_SPACES = lazy_pattern(r"\s+")
# Browsers pass over these in a scheme, wherever they stand.
_UNSEEN = lazy_pattern("[\x00-\x20\x7f-\xa0\xad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")


def link(value: object) -> str:
    """The filter `link`: the address as it is, spaces made `%20`, if its scheme is one of `SCHEMES` or there is none.

    Raises `TemplateRuntimeError` for any other, such as `javascript:`.
    """
    if isinstance(value, PictureAddress):
        return value
    text = str(value).strip()
    bare = _UNSEEN.sub("", text)
    scheme = _SCHEME.match(bare)
    if scheme and (scheme[1].lower() not in SCHEMES or not bare.startswith(text[: scheme.end()])):
        raise TemplateRuntimeError(
            f"{printable(text, 60)!r} is no address that a message may link to; "
            f"expected {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}"
        )
    address = _SPACES.sub("%20", text)
    return Markup(address) if isinstance(value, Markup) else address  # noqa: S704 - it was markup before


def utm(
    value: object,
    source: str,
    medium: str = "email",
    campaign: str = "",
    term: str = "",
    content: str = "",
    id: str = "",
) -> str:
    """The filter `utm`: a web address with `utm_source` and so on, in front of its fragment.

    Those that the address has already stay as they are.  Raises `Refused` for what is no address of the web.
    """
    text = str(printed(value)).strip()
    try:
        address = urlsplit(text)
    except ValueError:
        address = urlsplit("")
    if address.scheme.lower() not in ("http", "https") or not address.netloc or _SPACES.search(text):
        raise Refused(value, "is not an address that begins with https://", fix="write the whole address in the cell")
    said = {"source": source, "medium": medium, "campaign": campaign, "term": term, "content": content, "id": id}
    known = {name for name, _ in parse_qsl(address.query, keep_blank_values=True)}
    more = [(f"utm_{name}", str(each)) for name, each in said.items() if each and f"utm_{name}" not in known]
    query = "&".join(filter(None, [address.query, urlencode(more, quote_via=quote)]))
    found = urlunsplit(address._replace(query=query))
    return Markup(found) if isinstance(value, Markup) else found  # noqa: S704 - it was markup before


def guarded(masked: Masked) -> Masked:
    """The page with `link` put to every value that begins an address, and quotes around every value filled in."""
    tags = list(masked.tags)
    patches = Patches(masked.text)
    for element in elements(masked.text):
        for attribute in element.attributes:
            places = list(PLACE.finditer(attribute.raw))
            if not places or masked.tag(places[0]).text == PICTURE_TAG:
                continue
            if attribute.value_start + len(attribute.raw) == attribute.end:  # nothing follows it: no quote
                patches.insert(attribute.value_start, '"')
                patches.insert(attribute.end, '"')
            if attribute.name in _ADDRESSES or attribute.name.endswith(":href"):
                for place in places:
                    if not re.search("[:/?#]", PLACE.sub("", attribute.raw[: place.start()])):
                        tags[int(place[1])] = _filtered(masked.tag(place))
    return Masked(patches.applied(), tuple(tags))


def _filtered(tag: Tag) -> Tag:
    if tag.kind is not TagKind.VALUE or FILTER in tag.words:
        return tag
    start = 3 if tag.text[2] in "-+" else 2
    end = -3 if tag.text[-3] in "-+" else -2
    text = f"{tag.text[:start]} ({tag.text[start:end]}) | {FILTER} {tag.text[end:]}"
    return Tag(TagKind.VALUE, text)
