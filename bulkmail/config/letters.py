"""The letter of a campaign: flags and `[message]`, with the content of every file, as a `Campaign`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from bulkmail.config.files import FileReader
from bulkmail.config.problems import Said
from bulkmail.config.schema import LetterTable
from bulkmail.config.sources import Sources
from bulkmail.model.address import Address, has_control, parse_mailbox
from bulkmail.model.campaign import Attachment, Campaign, Template
from bulkmail.model.errors import AddressError
from bulkmail.model.reply import printable

EXAMPLE_SENDER = "Corner Shop <hello@shop.example>"


def build_campaign(sources: Sources, reader: FileReader, *, name: str) -> Campaign:
    """The campaign as far as it can be read.  It is of use only if no fault was told meanwhile."""
    nothing = Template("", "")
    campaign = Campaign(
        name=name,
        sender=_sender(sources) or nothing,
        subject=_subject(sources) or nothing,
        text=_body(sources, reader, "text"),
        html=_body(sources, reader, "html"),
        to_name=_line(sources, "to_name", sources.file.message.to_name),
        reply_to=_reply_to(sources),
        headers=_headers(sources),
        attachments=_attachments(sources, reader),
        reverse_path=_reverse_path(sources),
    )
    _tell_missing_body(sources)
    lines = (campaign.sender, campaign.subject, campaign.to_name, campaign.reply_to)
    for template in (*lines, campaign.text, campaign.html, *(value for _, value in campaign.headers)):
        if template is not None:
            reader.collect_parts(template)
    return replace(campaign, partials=tuple(reader.parts[key] for key in sorted(reader.parts)))


def _template(sources: Sources, said: Said[str], key: str) -> Template:
    return Template(said.place if said.place.startswith("--") else sources.template_name(key), said.value)


def _line(
    sources: Sources, key: str, written: str | None, *, flag: str = "", typed: str | None = None
) -> Template | None:
    """A template of one line."""
    said = sources.pick(("message", key), written, flag=flag, typed=typed)
    if said is None:
        return None
    return None if _has_strange(sources, said) else _template(sources, said, key)


def _has_strange(sources: Sources, said: Said[str]) -> bool:
    """Whether `said` has a character that no header can have.  Line ends are made into spaces later on."""
    if not has_control(re.sub(r"[\t\r\n]", " ", said.value)):
        return False
    sources.problems.add(f"{said}: holds a control character", "type it anew")
    return True


def _sender(sources: Sources) -> Template | None:
    key, written, typed = ("message", "from"), sources.file.message.sender, sources.overrides.sender
    said = sources.pick(key, written, flag="--from", typed=typed)
    if said is None or not said.value.strip():
        if said is not None:
            sources.problems.add(f"{said}: is empty", f'write from = "{EXAMPLE_SENDER}"')
        else:
            sources.tell_missing(key, flag="--from", what="who the mail is from", example=EXAMPLE_SENDER)
        return None
    _check_mailbox(sources, said)
    return _line(sources, "from", written, flag="--from", typed=typed)


def _subject(sources: Sources) -> Template | None:
    written, typed = sources.file.message.subject, sources.overrides.subject
    if written is None and typed is None:
        sources.tell_missing(
            ("message", "subject"), flag="--subject", what="what the mail is about", example="Spring is here"
        )
        return None
    return _line(sources, "subject", written, flag="--subject", typed=typed)


def _reply_to(sources: Sources) -> Template | None:
    said = sources.pick(("message", "reply_to"), sources.file.message.reply_to)
    if said is not None:
        _check_mailbox(sources, said)
    return _line(sources, "reply_to", sources.file.message.reply_to)


def _check_mailbox(sources: Sources, said: Said[str]) -> None:
    """An address that is the same for everybody is checked now; one with a template when it is filled in."""
    if "{{" in said.value or "{%" in said.value or has_control(said.value):
        return
    try:
        parse_mailbox(said.value)
    except AddressError as error:
        sources.problems.add(f"{said}: {error}", f'write it as "{EXAMPLE_SENDER}"')


def _reverse_path(sources: Sources) -> str:
    said = sources.pick(("message", "reverse_path"), sources.file.message.reverse_path)
    if said is None:
        return ""
    try:
        return Address.parse(said.value.strip()).wire
    except AddressError as error:
        sources.problems.add(f"{said}: {error}", 'write reverse_path = "bounces@shop.example", or leave it out')
        return ""


def _body(sources: Sources, reader: FileReader, part: str) -> Template | None:
    """The text or HTML part, from a file, standard input, or the campaign file itself."""
    message, overrides = sources.file.message, sources.overrides
    typed = overrides.text if part == "text" else overrides.html
    if typed is not None:
        return reader.letter(sources.typed(f"--{part}", typed))
    table: LetterTable | None = message.text if part == "text" else message.html
    if table is None:
        return None
    key = ("message", part)
    if (table.file is None) == (table.inline is None):
        if not any(path[:2] == key for path in sources.broken):
            sources.problems.add(
                f"{sources.place(key)}: needs either file or inline", f'write {part} = "letter.{_SUFFIXES[part]}"'
            )
        return None
    if table.inline is not None:
        return Template(sources.template_name(part), table.inline)
    return reader.letter(Said(table.file or "", sources.place(key), sources.home))


_SUFFIXES = {"text": "txt", "html": "html"}


def _tell_missing_body(sources: Sources) -> None:
    message, overrides = sources.file.message, sources.overrides
    has_broken = any(path[:2] == ("message", "html") for path in sources.broken)
    if message.text is None and message.html is None and not overrides.has_letter and not has_broken:
        sources.tell_missing(("message", "text"), flag="--text", what="where the letter is", example="letter.txt")


def _headers(sources: Sources) -> tuple[tuple[str, Template], ...]:
    """The file's headers, and the flags' in place of those of the same name."""
    found: dict[str, tuple[str, Template]] = {}
    for name, value in sources.file.message.headers.items():
        said = Said(value, sources.place(("message", "headers", name)), sources.home)
        _add_header(sources, found, name=name, said=said)
    for line in sources.overrides.headers:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            sources.problems.add(
                f"{sources.typed('--header', line)}: is not a header", 'write --header "X-Shop: spring"'
            )
            continue
        _add_header(
            sources, found, name=name.strip(), said=Said(value.strip(), f"--header {printable(name)}", Path("."))
        )
    return tuple(found.values())


def _add_header(sources: Sources, found: dict[str, tuple[str, Template]], *, name: str, said: Said[str]) -> None:
    if has_control(name):
        sources.problems.add(f"{said}: the header's name holds a control character", "type it anew")
    elif not _has_strange(sources, said):
        found[name.casefold()] = (name, _template(sources, said, f"headers.{name}"))


def _attachments(sources: Sources, reader: FileReader) -> tuple[Attachment, ...]:
    found: list[Attachment | None] = []
    for number, table in enumerate(sources.file.message.attachments):
        place = sources.place(("message", "attachments", number))
        if not table.file:
            sources.problems.add(f"{place}: an attachment names no file", 'write { file = "menu.pdf" }')
            continue
        said = Said(table.file, place, sources.home)
        found.append(reader.attachment(said, name=table.name, content_type=table.type))
    found += [reader.attachment(sources.typed("--attach", name)) for name in sources.overrides.attach]
    return tuple(attachment for attachment in found if attachment is not None)
