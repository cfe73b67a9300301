"""A message's HTML made fit for a frame that asks nothing of the network: its own pictures inside, others left out."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import unquote

from selectolax.lexbor import LexborHTMLParser, LexborNode

from bulkmail.message.html.scanner import DEEPEST_READ, is_deep
from bulkmail.model.lazy import dataclass, lazy_pattern

# What stands where a picture of the network would: grey, and as large as the message says.
_INSTEAD = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='64' height='64'%3E"
    "%3Crect width='100%25' height='100%25' fill='%23c9d0d8'/%3E%3C/svg%3E"
)
_NOTHING = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg'/%3E"  # behind a text, grey would hide it
_REMOTE = lazy_pattern(r"[\x00-\x20]*(?:[a-z][a-z0-9+.-]*:)?//|[\x00-\x20]*(?:https?|ftp|file|blob):", re.IGNORECASE)
_STYLE_URL = lazy_pattern(r"url\(\s*(?P<quote>[\"']?)(?P<url>[^)\"']*)(?P=quote)\s*\)", re.IGNORECASE)
_IMPORT = lazy_pattern(r"@import\b[^;]*;?", re.IGNORECASE)
# They load, run, ask or lead away; a mail program shows none of them.
_UNWANTED = (
    "script, iframe, frame, frameset, object, embed, applet, base, noscript, audio, video, source, portal, "
    "link, meta[http-equiv], img[srcset]:not([src]), image"
)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that the HTML names by its Content-ID."""

    content_type: str
    content: bytes

    def as_url(self) -> str:
        """The picture itself as a `data:` URL."""
        return f"data:{self.content_type};base64,{b64encode(self.content).decode('ascii')}"


def with_pictures(html: str, pictures: Mapping[str, Picture]) -> str:
    """The page with the pictures of its message where it names them by Content-ID; the rest as it is."""

    def put_in(found: re.Match[str]) -> str:
        picture = pictures.get(unquote(found[1]))
        return picture.as_url() if picture else found[0]

    return _CID.sub(put_in, html) if pictures else html


_CID = lazy_pattern(r"\bcid:([^\s\"'()<>,]+)", re.IGNORECASE)


def framed(html: str, pictures: Mapping[str, Picture]) -> tuple[str, int] | None:
    """The page for a sandboxed frame, and how many things of the network were left out; None if it nests too deeply.

    `pictures` are those that came with the message, by Content-ID.  Links stay, and lead to a window that the frame
    may not open.
    """
    if is_deep(html, DEEPEST_READ):
        return None
    tree = LexborHTMLParser(html)
    remote = 0
    for node in tree.css(_UNWANTED):
        is_remote = node.tag in ("link", "image", "img") and _is_remote(node.attributes.get("href") or "//")
        remote += is_remote
        node.decompose()
    for node in tree.css("*"):
        if node.attributes or node.tag == "style":
            remote += _made_local(node, pictures)
    head = tree.css_first("head")
    if head is not None:
        base = LexborHTMLParser('<base target="_blank">').css_first("base")
        if base is not None:
            head.insert_child(base)
    return tree.html or "", remote


def _made_local(node: LexborNode, pictures: Mapping[str, Picture]) -> int:
    """Takes out of a node what would ask the network; says how many things that were."""
    remote = 0
    attributes = node.attributes
    for name in attributes:
        if name in ("srcset", "poster", "ping") or name.startswith("on"):
            del node.attrs[name]
    for name in ("src", "background"):
        url = attributes.get(name)
        if url is None:
            continue
        made_local, is_remote = _local(url, pictures, instead=_INSTEAD if name == "src" else _NOTHING)
        remote += is_remote
        node.attrs[name] = made_local
    style = attributes.get("style")
    if style:
        made_local, number = _local_style(style, pictures)
        remote += number
        if made_local != style:
            node.attrs["style"] = made_local
    if node.tag == "style":
        text = node.text(deep=True)
        made_local, number = _local_style(text, pictures)
        remote += number
        if made_local != text:
            fresh = LexborHTMLParser(f"<style>{made_local}</style>").css_first("style")
            if fresh is not None:
                node.replace_with(fresh)
    return remote


def _local_style(style: str, pictures: Mapping[str, Picture]) -> tuple[str, int]:
    number = 0

    def local(found: re.Match[str]) -> str:
        nonlocal number
        made_local, is_remote = _local(found["url"], pictures, instead=_NOTHING)
        number += is_remote
        return f'url("{made_local}")' if '"' not in made_local else "none"

    return _STYLE_URL.sub(local, _IMPORT.sub("", style)), number


def _local(url: str, pictures: Mapping[str, Picture], *, instead: str) -> tuple[str, bool]:
    """The URL as it may stand in the frame, and whether another one was meant, of the network."""
    bare = url.strip()
    if bare[:4].lower() == "cid:":
        found = pictures.get(unquote(bare[4:]))
        return (found.as_url() if found else instead), False
    if bare[:5].lower() == "data:":
        return url, False
    return instead, bool(bare)


def _is_remote(url: str) -> bool:
    return bool(_REMOTE.match(url))
