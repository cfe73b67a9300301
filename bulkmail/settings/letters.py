"""The message of a campaign: flags and `[message]`, with the content of every file, as a `Campaign`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bulkmail.model.address import has_control
from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.errors import ConfigError
from bulkmail.model.variants import Variants, parse_variants
from bulkmail.settings.bodies import body, more_bodies, with_local_files
from bulkmail.settings.enclosures import attachments, row_attachments
from bulkmail.settings.files import FileReader
from bulkmail.settings.headings import heading, reverse_path
from bulkmail.settings.lines import EXAMPLE_SENDER, check_mailbox, has_strange, one_line, template_of
from bulkmail.settings.localities import locality
from bulkmail.settings.problems import Said
from bulkmail.settings.sources import Sources
from bulkmail.settings.values import campaign_data
from bulkmail.text import printable


def build_campaign(sources: Sources, reader: FileReader, *, name: str) -> Campaign:
    """The campaign as far as it can be read.  It is usable only if no fault was reported meanwhile."""
    nothing = Template("", "")
    campaign = Campaign(
        name=name,
        sender=_sender(sources) or nothing,
        subject=_subject(sources) or nothing,
        has_subject=_has_subject(sources),
        text=body(sources, reader, "text"),
        html=body(sources, reader, "html"),
        to_name=one_line(sources, "to_name", sources.file.message.to_name),
        reply_to=_reply_to(sources),
        headers=_headers(sources),
        attachments=attachments(sources, reader),
        reverse_path=reverse_path(sources),
        **heading(sources),
        **more_bodies(sources, reader),
        **locality(sources),
        data=campaign_data(sources, reader),
        variants=_variants(sources),
        group_by=_group_by(sources),
        row_attachments=row_attachments(sources),
    )
    _tell_missing_body(sources)
    lines = (campaign.locale, campaign.sender, campaign.subject, campaign.to_name, campaign.reply_to)
    more = (campaign.to, campaign.cc, campaign.bcc, campaign.sent_by, campaign.list_id, campaign.feedback_id)
    bodies = (campaign.text, campaign.html, campaign.markdown, campaign.mjml, campaign.preheader, campaign.calendar)
    before = len(sources.problems)
    for template in (*lines, *more, *bodies, *(value for _, value in campaign.headers)):
        if template is not None:
            reader.collect_parts(template)
    campaign = replace(campaign, partials=tuple(reader.parts[key] for key in sorted(reader.parts)))
    return campaign if len(sources.problems) > before else with_local_files(campaign, sources, reader)


def _variants(sources: Sources) -> Variants:
    said = sources.pick(("message", "variants"), sources.file.message.variants)
    if said is None:
        return ()
    try:
        return parse_variants(said.value)
    except ConfigError as error:
        sources.problems.add(f"{sources.place(('message', 'variants'))}: {error}", error.hint)
        return ()


def _group_by(sources: Sources) -> tuple[str, ...]:
    said = sources.pick(
        ("recipients", "group_by"),
        tuple(sources.file.recipients.group_by) or None,
        flag="--group-by",
        typed=sources.overrides.group_by or None,
    )
    if said is None:
        return ()
    columns = tuple(column.strip() for column in said.value)
    if "" in columns or len(set(columns)) < len(columns):
        what = "is empty" if "" in columns else "names a column twice"
        sources.problems.add(f"{said}: {what}", 'write the name of a column: group_by = "email"')
    elif sources.overrides.allow_duplicates or sources.file.recipients.allow_duplicates:
        what = "rows cannot share a message and have one each (allow_duplicates)"
        sources.problems.add(f"{said}: {what}", "keep one of group_by and allow_duplicates")
    return columns


def _sender(sources: Sources) -> Template | None:
    key, written, typed = ("message", "from"), sources.file.message.sender, sources.overrides.sender
    said = sources.pick(key, written, flag="--from", typed=typed)
    if said is None or not said.value.strip():
        if said is not None:
            sources.problems.add(f"{said}: is empty", f'write from = "{EXAMPLE_SENDER}"')
        else:
            sources.tell_missing(key, flag="--from", what="who the mail is from", example=EXAMPLE_SENDER)
        return None
    check_mailbox(sources, said)
    return one_line(sources, "from", written, flag="--from", typed=typed)


def _subject(sources: Sources) -> Template | None:
    written, typed = sources.file.message.subject, sources.overrides.subject
    if not _has_subject(sources):
        return Template(sources.template_name("subject"), "")
    if written is None and typed is None:
        sources.tell_missing(
            ("message", "subject"), flag="--subject", what="what the mail is about", example="Spring is here"
        )
        return None
    return one_line(sources, "subject", written, flag="--subject", typed=typed)


def _has_subject(sources: Sources) -> bool:
    """A message file may do without; a check warns of it."""
    said = sources.overrides.subject is not None or (sources.file.message.subject or "").strip()
    return bool(said) or not sources.is_message_file


def _reply_to(sources: Sources) -> Template | None:
    said = sources.pick(("message", "reply_to"), sources.file.message.reply_to)
    if said is not None:
        check_mailbox(sources, said)
    return one_line(sources, "reply_to", sources.file.message.reply_to)


_BODY_KEYS = {("html",), ("markdown",), ("mjml",)}


def _tell_missing_body(sources: Sources) -> None:
    message, overrides = sources.file.message, sources.overrides
    has_broken = any(path[:1] == ("message",) and path[1:2] in _BODY_KEYS for path in sources.broken)
    has_body = any(body is not None for body in (message.text, message.html, message.markdown, message.mjml))
    if not (has_body or overrides.has_message or has_broken):
        sources.tell_missing(("message", "text"), flag="--text", what="where the message is", example="message.txt")


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
        sources.problems.add(f"{said}: the header's name holds a control character", "type it again")
    elif not has_strange(sources, said):
        found[name.casefold()] = (name, template_of(sources, said, f"headers.{name}"))
