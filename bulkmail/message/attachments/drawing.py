"""Pictures that a page draws for a row: the filter `qr`, and the parts that the message brings along for them."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from jinja2 import TemplateRuntimeError

from bulkmail.message.compose.transfer_encoding import base64_lines
from bulkmail.message.template.numbers import Refused
from bulkmail.message.template.strictness import printed
from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import lazy_pattern

FILTER = "qr"
PICTURE = "picture"
LONGEST = 1_000  # bytes in a code; more would be too fine for a camera
_SCALES = range(1, 21)  # pixels of a module
_USES = lazy_pattern(r"\|\s*qr\b")


class Drawn(NamedTuple):
    """A picture that a page shows as `cid:CONTENT_ID`.

    `encoded` is its content in base64.  `attached` is the path of a file that need not be attached as well.
    """

    content_id: str
    encoded: bytes
    filename: str = "code.png"
    content_type: str = "image/png"
    attached: str = ""


class PictureAddress(str):
    """The address of a picture that the message brings along: `link` lets it pass."""

    __slots__ = ()


class _Drawing(threading.local):
    found: dict[str, Drawn] | None = None


_drawing = _Drawing()


@contextmanager
def drawing() -> Iterator[dict[str, Drawn]]:
    """Gathers the pictures that a rendering draws, by Content-ID.  Outside of it nothing is drawn."""
    before, _drawing.found = _drawing.found, {}
    try:
        yield _drawing.found
    finally:
        _drawing.found = before


def is_drawing() -> bool:
    """Whether a rendering wants the pictures that it shows."""
    return _drawing.found is not None


def show(picture: Drawn) -> None:
    """Adds a picture to the rendering that wants it, if one does."""
    if _drawing.found is not None:
        _drawing.found[picture.content_id] = picture


def draws(campaign: Campaign) -> bool:
    """Whether a page of the campaign may draw, or show pictures of the row.

    Raises `ConfigError` where it needs an extra that is not installed.
    """
    pages = (campaign.html, campaign.markdown, campaign.mjml, campaign.preheader, *campaign.partials)
    if not any(page is not None and _uses(page) for page in pages):
        return campaign.row_pictures is not None
    try:
        import segno  # noqa: F401
    except ImportError:
        raise ConfigError(
            "the filter qr needs the segno package, which is not installed", hint="type: pip install 'bulkmail[qr]'"
        ) from None
    return True


def _uses(template: Template) -> bool:
    return _USES.search(template.text) is not None


def qr(value: Any, scale: int = 6) -> PictureAddress:
    """The filter `qr` of pages: the address of a picture with the code of a text, `scale` pixels a module (1 to 20)."""
    if isinstance(scale, bool) or scale not in _SCALES:
        raise TemplateRuntimeError(f"qr: scale={str(scale)[:20]} is not a whole number from 1 to 20")
    text = str(printed(value)).strip()
    if not text:
        raise Refused(value, "is empty, and a code would say nothing", fix="write {% if … %} around the picture")
    if len(text.encode("utf-8", "replace")) > LONGEST:
        raise Refused(value, f"has more than {LONGEST:,} bytes, too many for a code", fix="link to it instead")
    content_id = f"{blake2b(f'{scale} {text}'.encode('utf-8', 'replace'), digest_size=12).hexdigest()}@qr"
    if _drawing.found is not None:
        _drawing.found[content_id] = Drawn(content_id, _png(text, scale))
    return PictureAddress(f"cid:{content_id}")


def no_picture(value: Any) -> str:
    """The filter `picture` where no picture can be."""
    raise TemplateRuntimeError(
        'picture shows a file of the campaign\'s folder: write <img src="{{ path | picture }}" alt="…"> in the page'
    )


def no_qr(value: Any, scale: int = 6) -> str:
    """The filter `qr` where no picture can be."""
    raise TemplateRuntimeError('qr draws a picture: write <img src="{{ code | qr }}" alt="…"> in the page')


@lru_cache(maxsize=256)
def _png(text: str, scale: int) -> bytes:
    import segno

    code = segno.make(text, error="m", micro=False)
    stream = io.BytesIO()
    code.save(stream, kind="png", scale=scale)
    return base64_lines(stream.getvalue())
