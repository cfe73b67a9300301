"""`[message]` as a `Campaign`: who it is from and to, its header, its bodies, for whom it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bulkmail.message.header.addresses import with_others
from bulkmail.model.campaign import Campaign, Dkim, Template, Unsubscribe
from bulkmail.model.errors import ConfigError
from bulkmail.model.recipient import has_control
from bulkmail.settings.body_files import body, more_bodies, with_local_files
from bulkmail.settings.campaign_files import FileReader, attachments, row_attachments
from bulkmail.settings.campaign_values import campaign_data
from bulkmail.settings.layers import KeyPath, Sources
from bulkmail.settings.parsers import EXAMPLE_SENDER, parse_one_line
from bulkmail.settings.problems import Said
from bulkmail.settings.schema import DkimTable, UnsubscribeTable
from bulkmail.settings.secrets import one_place
from bulkmail.text import printable


def build_campaign(sources: Sources, reader: FileReader, *, name: str) -> Campaign:
    """The campaign as far as it can be read.  It is usable only if no fault was reported meanwhile."""
    message, nothing = sources.file.message, Template("", "")
    campaign = Campaign(
        name=name,
        sender=_sender(sources) or nothing,
        subject=_subject(sources) or nothing,
        has_subject=_has_subject(sources),
        text=body(sources, reader, "text"),
        html=body(sources, reader, "html"),
        to_name=sources.template("to_name", message.to_name),
        reply_to=sources.template("reply_to", message.reply_to),
        headers=_headers(sources),
        attachments=attachments(sources, reader),
        reverse_path=message.reverse_path or "",
        to=_to(sources),
        cc=sources.template("cc", message.cc),
        bcc=sources.template("bcc", message.bcc),
        sent_by=sources.template("sender", message.sent_by),
        list_id=sources.template("list_id", message.list_id),
        feedback_id=sources.template("feedback_id", message.feedback_id),
        unsubscribe=_unsubscribe(sources, message.unsubscribe),
        dkim=_dkim(sources, message.dkim),
        **more_bodies(sources, reader),
        locale=sources.template("locale", message.locale),
        timezone=message.timezone or "",
        data=campaign_data(sources, reader),
        variants=message.variants or (),  # type: ignore[arg-type]
        group_by=_group_by(sources),
        row_attachments=row_attachments(sources),
    )
    _tell_missing_body(sources)
    before = len(sources.problems)
    for template in campaign.templates():
        reader.collect_parts(template)
    campaign = replace(campaign, partials=tuple(reader.parts[key] for key in sorted(reader.parts)))
    return campaign if len(sources.problems) > before else with_local_files(campaign, sources, reader)


def _group_by(sources: Sources) -> tuple[str, ...]:
    recipients, key = sources.file.recipients, ("recipients", "group_by")
    if recipients.group_by and recipients.allow_duplicates:
        what = "rows cannot share a message and have one each (allow_duplicates)"
        sources.problems.add(f"{sources.place(key)}: {what}", "keep one of group_by and allow_duplicates")
    return tuple(recipients.group_by)


def _sender(sources: Sources) -> Template | None:
    written = sources.file.message.sender
    if written is None:
        sources.tell_missing(("message", "from"), flag="--from", what="who the mail is from", example=EXAMPLE_SENDER)
    return sources.template("from", written)


def _subject(sources: Sources) -> Template | None:
    written = sources.file.message.subject
    if not _has_subject(sources):
        return Template(sources.template_name("subject"), "")
    if written is None:
        sources.tell_missing(
            ("message", "subject"), flag="--subject", what="what the mail is about", example="Spring is here"
        )
    return sources.template("subject", written)


def _has_subject(sources: Sources) -> bool:
    """A message file may do without; a check warns of it."""
    said = ("message", "subject") in sources.flags or (sources.file.message.subject or "").strip()
    return bool(said) or not sources.is_message_file


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
        _add_header(sources, found, name=name, said=Said(value, sources.place(("message", "headers", name)), Path(".")))
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
        return
    try:
        title = said.place if said.is_typed else sources.template_name(f"headers.{name}")
        found[name.casefold()] = (name, Template(title, parse_one_line(said.value)))
    except ConfigError as error:
        sources.problems.add(f"{said}: {error}", error.hint)


MOST_TOGETHER = 20  # addresses that one message shows to each other


def row_address(sources: Sources) -> Template | None:
    """The template of each row's address; a flag that names people, or the column, goes before it."""
    recipients = sources.file.recipients
    if recipients.address is None or sources.overrides.to or recipients.address_column:
        return None
    return Template(sources.template_name("to" if sources.is_message_file else "address"), recipients.address)


def _to(sources: Sources) -> Template | None:
    """Who stands in To beside the row's own address."""
    to = sources.template("to", sources.file.message.to)
    if sources.overrides.together:
        return _together(sources, to)
    address = row_address(sources)
    if address is None:
        return to
    text = with_others(address.text, to.text if to else "")
    return Template(to.name if to else address.name, text) if text else None


def _together(sources: Sources, to: Template | None) -> Template | None:
    """The addresses of `--to` behind the first, which all stand in To of one message.  Faults are reported."""
    addresses, add = sources.overrides.to, sources.problems.add
    if len(addresses) > MOST_TOGETHER:
        add(
            f"--together: shows {len(addresses)} addresses to each other, and at most {MOST_TOGETHER} may be",
            "leave --together out: then each gets a message of their own",
        )
    if not addresses:
        add("--together: shows the addresses of --to to each other, and there is none", "add --to ADDRESS")
    if to is not None:
        add("--together: the message has other addresses in to already", "keep one of them")
    if sources.file.message.unsubscribe is not None:
        add(
            "--together: all recipients would get the unsubscribe link of the first address",
            "leave --together out: then each gets a link of their own",
        )
    if any(mark in address for address in addresses for mark in ("{{", "{%", "{#")):
        add("--together: an address looks like a template", "write it as name@example.com")
        return None
    return Template("--to", ", ".join(addresses[1:])) if addresses[1:] else None


def _unsubscribe(sources: Sources, table: UnsubscribeTable | None) -> Unsubscribe | None:
    if table is None:
        return None
    path: KeyPath = ("message", "unsubscribe")
    if not (table.https or table.mailto):
        sources.problems.add(
            f"{sources.place(path)}: says neither https nor mailto", 'write https = "https://shop.example/u/{token}"'
        )
    key = one_place(sources, path, table, "key", is_needed=True)
    return Unsubscribe(table.https or "", table.mailto or "", str(key or ""))


def _dkim(sources: Sources, tables: Sequence[DkimTable]) -> tuple[Dkim, ...]:
    found = []
    for number, table in enumerate(tables):
        path: KeyPath = ("message", "dkim", number)
        if path not in sources.lines:
            path = ("message", "dkim")
        for key, value, example in (("domain", table.domain, "shop.example"), ("selector", table.selector, "s1")):
            if not value and (*path, key) not in sources.broken:
                sources.problems.add(f"{sources.place(path)}: has no {key}", f'write {key} = "{example}" below it')
        key_place = one_place(sources, path, table, "key", is_needed=True)
        found.append(Dkim(table.domain or "", table.selector or "", table.preset or "", str(key_place or "")))
    return tuple(found)
