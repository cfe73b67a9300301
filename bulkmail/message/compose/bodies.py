"""The bodies of a message: text, HTML and calendar, from what the campaign gives to what goes into each message."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar
from urllib.parse import unquote

from msgspec import Struct

from bulkmail.message.attachments.drawing import Drawn, drawing, draws
from bulkmail.message.attachments.invitation import folded, method_of
from bulkmail.message.compose.compiled import Part
from bulkmail.message.compose.mime_plan import Slot
from bulkmail.message.compose.pieces import NotCompiled
from bulkmail.message.compose.rendered import Body, encoded_body
from bulkmail.message.html.local_files import (
    CID,
    content_id,
    file_name,
    file_of,
    is_attached,
    local_images,
    local_stylesheets,
    more_images,
    row_images,
    with_charset,
    with_images,
    with_row_images,
    with_stylesheets,
)
from bulkmail.message.html.scanner import DEEPEST_READ, EndTag, Patches, Remark, elements, is_deep, scan
from bulkmail.message.html.to_text import typeset
from bulkmail.message.template.links import guarded
from bulkmail.message.template.rendering import Rendering, Workshop
from bulkmail.message.template.tags import NONCHARACTER, PLACE, Masked, TagKind, mask, without_tag_lines
from bulkmail.model.campaign import Campaign, InlineImage, Template
from bulkmail.model.errors import TemplateError
from bulkmail.model.lazy import lazy_pattern

T = TypeVar("T")

# In HTML these make what a reader sees; in a text they would be seen themselves.
_ESCAPING = frozenset({"e", "escape", "forceescape"})
# What lists of mail show after the preheader, instead of the message's first words.
_FILLER = "&zwnj;&nbsp;" * 60
_CLOSE = "close what is open: each <div>, <b> or <span> needs its end tag"
_HIDDEN = "display: none; max-height: 0; overflow: hidden; mso-hide: all"


class Written(Struct, frozen=True):
    """The bodies of one message, with LF line ends, one at the end of each; None for what it has not.

    `pictures` are those that its page draws.
    """

    text: str | None = None
    html: str | None = None
    calendar: str | None = None
    pictures: tuple[Drawn, ...] = ()


class Bodies:
    """What the bodies of a campaign are made of; whatever does not depend on the row is done when it is made."""

    def __init__(self, campaign: Campaign, workshop: Workshop) -> None:
        """Raises `TemplateError`, and `ConfigError` for an extra that it needs."""
        self.draws = draws(campaign)
        self._text = Body(workshop.text(without_tag_lines(campaign.text))) if campaign.text else None
        self._html: Body | None = None
        self._derived: Body | None = None
        # Where the page is made of something else, errors are looked for in that: it is what people can fix.
        self._original: Rendering | None = None
        # What a page is before it is read: where it goes out without, its style sheets say what is hidden.
        self._shown: Callable[[str], str] | None = None
        self._name = ""
        self._calendar = Body(workshop.calendar(campaign.calendar), finish=folded) if campaign.calendar else None
        self.method = method_of(campaign.calendar.text) if campaign.calendar else ""
        # Two files with the same content are one part: a Content-ID is unique in its message (RFC 2392).
        first = {content_id(image): image for image in reversed(campaign.images)}
        self.images: list[tuple[str, InlineImage]] = list(reversed(first.items()))
        self._typeset = functools.partial(typeset, pictures={content: image.filename for content, image in self.images})
        source = campaign.html or campaign.markdown or campaign.mjml
        if source is not None:
            self._original = workshop.text(source, draws=self.draws)
            self._make_page(_page_of(campaign), campaign, workshop)

    def _make_page(self, template: Template, campaign: Campaign, workshop: Workshop) -> None:
        self._name = template.name
        masked = in_html(template, campaign)
        finish = None
        styled: Masked | None = masked  # with its style sheets inlined, as what they hide is not read
        if _has_styles(masked, campaign):
            from bulkmail.message.html.inlining import inlined, inlined_once, tidied  # late: few pages need it

            tidy = tidied(masked)
            styled = inlined_once(tidy)
            if campaign.inline_css:
                masked = styled or tidy
                finish = None if styled else inlined
            elif styled is None:
                self._shown = inlined
        if campaign.text is None and styled is not None:
            self._derived = _derived(template.name, styled, workshop, finish=self._typeset, draws=self.draws)
        masked = with_preheader(masked, campaign)
        self._html = Body(workshop.html(Template(template.name, masked.unmasked())), is_html=True, finish=finish)

    def check(self, variables: dict[str, object], fields: Mapping[str, object]) -> Written:
        """Raises the `TemplateError` that `written` would, for less work; says nothing."""
        for body in (self._html, self._text, self._calendar):
            if body is not None:
                self._explained(body.check, variables, fields)
        return Written()

    def written(self, variables: dict[str, object], fields: Mapping[str, object]) -> Written:
        """The bodies for one row.  Raises `TemplateError`."""
        if self.draws and self._html:
            with drawing() as found:
                html: str | None = self._explained(self._html.text, variables, fields)
            pictures = tuple(found.values())
        else:
            html = self._explained(self._html.text, variables, fields) if self._html else None
            pictures = ()
        calendar = self._calendar.text(variables, fields) if self._calendar else None
        if self._text is not None:
            text: str | None = self._text.text(variables, fields)
        else:
            text = None if html is None else self._read(html, variables, fields)
        return Written(text, html, calendar, pictures)

    def to_bytes(self, written: Written) -> tuple[bytes, bytes, bytes]:
        """What goes into the slots of text, HTML and calendar."""
        text = self._text or self._derived
        encoded_text = text.to_bytes if text else encoded_body
        return (
            b"" if written.text is None else encoded_text(written.text),
            b"" if written.html is None or self._html is None else self._html.to_bytes(written.html),
            b"" if written.calendar is None or self._calendar is None else self._calendar.to_bytes(written.calendar),
        )

    def parts(self) -> dict[Slot, Part]:
        """What a compiled message makes of each.  Raises `NotCompiled`."""
        if self.draws:
            raise NotCompiled
        parts: dict[Slot, Part] = {}
        if self._html is not None:
            html = self._html.part()
            parts[Slot.HTML] = self._explaining(html) if callable(html) else html
        if self._text is not None:
            parts[Slot.TEXT] = self._text.part()
        elif self._html is not None:
            # What is read from a page depends on its values, but for a stable page without marks in it.
            static = [piece for piece in html if isinstance(piece, str)] if isinstance(html, tuple) else None
            if self._derived is None or static is None or any(map(_has_marks, static)):
                raise NotCompiled
            parts[Slot.TEXT] = self._derived.part()
        if self._calendar is not None:
            parts[Slot.CALENDAR] = self._calendar.part()
        return parts

    def _explaining(self, make: Callable[[dict[str, object], Mapping[str, object]], bytes]) -> Part:
        return lambda variables, fields: self._explained(make, variables, fields)

    def check_general(self, variables: dict[str, object], fields: Mapping[str, object]) -> None:
        """As `check`, for those bodies that `parts` gives no pieces of."""
        for body in (self._html, self._text, self._calendar):
            if body is not None and callable(body.part()):
                self._explained(body.check, variables, fields)

    def _read(self, html: str, variables: dict[str, object], fields: Mapping[str, object]) -> str:
        # A cell with the signs that the stream is marked with must not set the text.
        if self._derived is not None and not _has_marks(html):
            return self._derived.text(variables, fields)
        return self._as_text(html)

    def _as_text(self, html: str) -> str:
        from bulkmail.message.html.to_text import read_page

        if is_deep(html, DEEPEST_READ):
            raise TemplateError(
                f"{self._name}:1: more than {DEEPEST_READ:,} elements one within the other", hint=_CLOSE
            )
        try:
            return self._typeset(read_page(self._shown(html) if self._shown else html))
        except RecursionError:
            raise TemplateError(f"{self._name}:1: is nested too deeply", hint=_CLOSE) from None

    def _explained(
        self,
        render: Callable[[dict[str, object], Mapping[str, object]], T],
        variables: dict[str, object],
        fields: Mapping[str, object],
    ) -> T:
        try:
            return render(variables, fields)
        except TemplateError:
            if self._original is not None:
                self._original.render(variables)
            raise


def _has_marks(html: str) -> bool:
    """Whether there are noncharacters.  Bytes are searched first, because that takes a tenth of the time."""
    return not html.isascii() and _MARK_BYTES in html.encode() and NONCHARACTER.search(html) is not None


_MARK_BYTES = "\ufdd0".encode()[:2]


def in_html(template: Template, campaign: Campaign) -> Masked:
    """A page, or a part of one, with what it names from its folder, and with no way for a cell to make a script."""
    masked = with_images(with_charset(with_stylesheets(mask(template), campaign.stylesheets)), campaign.images)
    return guarded(with_row_images(masked) if campaign.row_pictures is not None else masked)


def has_row_images(campaign: Campaign) -> bool:
    """Whether a page names a picture of its folder that depends on the row.  Raises `TemplateError`."""
    return any(
        next(row_images(masked), None) is not None or any(_PICTURE.search(tag.text) for tag in masked.tags)
        for masked in _pages(campaign)
    )


_PICTURE = lazy_pattern(r"(?:\||\{%[-+]?\s*filter)\s*picture\b")


def _pages(campaign: Campaign) -> Iterator[Masked]:
    """The page of the campaign and what it includes, if there is a page."""
    if campaign.html or campaign.markdown or campaign.mjml:
        for page in (_page_of(campaign), *(_as_piece(partial, campaign) for partial in campaign.partials)):
            yield mask(page)


def html_partials(campaign: Campaign) -> dict[str, str]:
    """The partials as pages include them, by name."""
    if not (campaign.html or campaign.markdown or campaign.mjml):
        return {}
    found = {
        partial.name: with_preheader(in_html(_as_piece(partial, campaign), campaign), campaign, only_in_body=True)
        for partial in campaign.partials
    }
    sources = {name: masked.unmasked() for name, masked in found.items()}
    if campaign.preheader is not None:
        sources[campaign.preheader.name] = campaign.preheader.text
    return sources


def local_names(campaign: Campaign) -> tuple[dict[str, str], dict[str, str]]:
    """The pictures and the style sheets of its folder that the pages of `campaign` name, each with the file meant.

    Raises `TemplateError`.
    """
    images: dict[str, str] = {}
    stylesheets: dict[str, str] = {}
    pages = [_page_of(campaign)] if campaign.html or campaign.markdown or campaign.mjml else []
    for page in [*pages, *(_as_piece(partial, campaign) for partial in campaign.partials if pages)]:
        masked = mask(page)
        images |= {
            masked.unmasked(attribute.value.strip()): masked.unmasked(file_name(attribute))
            for attribute in local_images(masked)
            if not is_attached(attribute.value)
        }
        stylesheets |= {
            masked.unmasked(attribute.value.strip()): masked.unmasked(file_name(attribute))
            for _, attribute in local_stylesheets(masked)
        }
    return images, stylesheets


def attached_names(campaign: Campaign) -> list[str]:
    """What the pages of `campaign` say by `cid:` of attachments, the same for every row.  Raises `TemplateError`."""
    found = (masked.unmasked(each.value.strip()) for masked in _pages(campaign) for each in local_images(masked))
    return list(dict.fromkeys(filter(is_attached, found)))


def with_attached_images(campaign: Campaign, named: Iterable[str]) -> tuple[Campaign, tuple[InlineImage, ...]]:
    """The pictures that the page names by `cid:` and an attachment's file name, and the campaign without these files.

    They are shown, and need not be attached as well.  Names that no attachment has are passed over.
    """
    known = {attachment.filename: attachment for attachment in campaign.attachments}
    found: list[InlineImage] = []
    for source in named:
        attachment = known.get(unquote(source.strip()[len(CID) :]))
        if attachment is not None:
            found.append(InlineImage(source, attachment.filename, attachment.content_type, attachment.content))
    shown = {image.filename for image in found}
    rest = tuple(attachment for attachment in campaign.attachments if attachment.filename not in shown)
    return replace(campaign, attachments=rest), tuple(found)


def optional_images(campaign: Campaign) -> dict[str, str]:
    """Pictures that pages name in `srcset` and in styles, those of the campaign's style sheets too.  See `local_names`.

    Raises `TemplateError`.
    """
    images: dict[str, str] = {}
    pages = [_page_of(campaign)] if campaign.html or campaign.markdown or campaign.mjml else []
    for page in [*pages, *(_as_piece(partial, campaign) for partial in campaign.partials if pages)]:
        masked = with_stylesheets(mask(page), campaign.stylesheets)
        images |= {each.address: file_of(each) for each in more_images(masked)}
    return images


def linked_fields(campaign: Campaign) -> frozenset[str]:
    """The fields whose value begins the address of a link in a page of `campaign`.  Raises `TemplateError`."""
    from bulkmail.message.template.field_names import fields_in  # here: names reads templates, as this does

    found: set[str] = set()
    pages = [_page_of(campaign)] if campaign.html or campaign.markdown or campaign.mjml else []
    for page in [*pages, *(_as_piece(partial, campaign) for partial in campaign.partials if pages)]:
        masked = mask(page)
        for element in elements(masked.text):
            href = element.get("href") if element.name in ("a", "area") else None
            place = PLACE.match(href.value.strip()) if href else None
            if place and masked.tag(place).kind is TagKind.VALUE:
                text = masked.tag(place).text
                names = fields_in(Template(page.name, text))
                if len(names) == 1 and not set("|~(") & set(text):
                    found |= names
    return frozenset(found)


def _page_of(campaign: Campaign) -> Template:
    if campaign.html is not None:
        return campaign.html
    if campaign.markdown is not None:  # late: its parser takes long to import
        from bulkmail.message.html.markdown import page_of

        return page_of(campaign.markdown)
    from bulkmail.message.html.mjml import page_of as page_of_mjml

    return page_of_mjml(campaign.mjml or Template("", ""))


def _as_piece(partial: Template, campaign: Campaign) -> Template:
    if campaign.markdown is None:
        return partial
    from bulkmail.message.html.markdown import SUFFIXES, piece_of

    if not partial.name.lower().endswith(SUFFIXES):
        return partial
    return piece_of(partial)


def _has_styles(masked: Masked, campaign: Campaign) -> bool:
    return any(
        element.name == "style"
        for text in (masked.text, *(partial.text for partial in campaign.partials))
        for element in elements(text)
    ) or any(sheet.text for sheet in campaign.stylesheets)


def _derived(
    name: str, masked: Masked, workshop: Workshop, *, finish: Callable[[str], str], draws: bool
) -> Body | None:
    """A template of the text that the page says; None where each message has to be read for itself."""
    from bulkmail.message.html.stability import instability, marked
    from bulkmail.message.html.to_text import read_template  # late: most campaigns bring a text of their own

    pass
    pass

    if instability(masked) or any(not _ESCAPING.isdisjoint(tag.words) for tag in masked.tags):
        return None
    plain = masked.without_control()
    stream = read_template(marked(plain, list(scan(plain.text))))
    try:
        return Body(workshop.text(Template(name, plain.unmasked(stream)), draws=draws), finish=finish)
    except TemplateError:
        return None


def with_preheader(masked: Masked, campaign: Campaign, *, only_in_body: bool = False) -> Masked:
    """The page with the preheader, hidden, in front of all it shows."""
    if campaign.preheader is None:
        return masked
    body = next((element for element in elements(masked.text) if element.name == "body"), None)
    others = [partial.text for partial in campaign.partials]
    if body is not None:
        position = body.end
    elif only_in_body or any("<body" in text.lower() for text in others):
        return masked
    else:
        position = _end_of_head(masked.text)
    name = campaign.preheader.name.replace("\\", "\\\\").replace('"', '\\"')
    include = f'<div style="{_HIDDEN}">{{% include "{name}" %}}{_FILLER}</div>'
    patches = Patches(masked.text)
    patches.insert(position, include)
    return masked.with_text(patches.applied())


def _end_of_head(page: str) -> int:
    """Where what is shown begins in a page without `<body>`."""
    position = 0
    is_leading = True
    for token in scan(page):
        is_leading = is_leading and isinstance(token, Remark)
        if is_leading or (isinstance(token, EndTag) and token.name == "head"):
            position = token.end
    return position
