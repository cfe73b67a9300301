"""`[message]` as a `Campaign`: who it is from and to, its header, its bodies, for whom it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bulkmail.message.dkim import PRESETS
from bulkmail.message.header.addresses import with_others
from bulkmail.message.template.locales import UnknownLocale, find_locale
from bulkmail.model.campaign import Campaign, Dkim, Template, Unsubscribe, is_template
from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.lazy import lazy_pattern
from bulkmail.model.recipient import Address, Variants, has_control, parse_variants
from bulkmail.settings.body_files import body, more_bodies, with_local_files
from bulkmail.settings.campaign_files import FileReader, attachments, resolve, row_attachments
from bulkmail.settings.campaign_values import campaign_data
from bulkmail.settings.layers import KeyPath, Sources
from bulkmail.settings.one_line import EXAMPLE_SENDER, check_mailbox, has_strange, one_line, template_of
from bulkmail.settings.parsers import find_zone
from bulkmail.settings.problems import Said, show
from bulkmail.settings.schema import DkimTable, UnsubscribeTable
from bulkmail.text import did_you_mean, printable


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
    before = len(sources.problems)
    for template in campaign.templates():
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


MOST_TOGETHER = 20  # addresses that one message shows to each other

_VARIABLE_NAME = lazy_pattern(r"[A-Za-z_][A-Za-z0-9_]*")


def heading(sources: Sources) -> dict[str, Any]:
    """The parts of a `Campaign` that these settings make.  Faults are reported."""
    message = sources.file.message
    sender = sources.pick(("message", "sender"), message.sent_by)
    if sender is not None:
        check_mailbox(sources, sender)
    return {
        "to": _to(sources),
        "cc": one_line(sources, "cc", message.cc),
        "bcc": one_line(sources, "bcc", message.bcc),
        "sent_by": one_line(sources, "sender", message.sent_by),
        "list_id": one_line(sources, "list_id", message.list_id),
        "feedback_id": one_line(sources, "feedback_id", message.feedback_id),
        "unsubscribe": _unsubscribe(sources, message.unsubscribe),
        "dkim": _dkim(sources, message.dkim),
    }


def row_address(sources: Sources) -> Template | None:
    """The template of each row's address; a flag that names people, or the column, goes before it."""
    recipients, overrides = sources.file.recipients, sources.overrides
    if recipients.address is None or overrides.to or overrides.address_column or recipients.address_column:
        return None
    return Template(sources.template_name("to" if sources.is_message_file else "address"), recipients.address)


def _to(sources: Sources) -> Template | None:
    """Who stands in To beside the row's own address."""
    to = one_line(sources, "to", sources.file.message.to)
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


def reverse_path(sources: Sources) -> str:
    """An address, or what becomes one when a row is filled in."""
    said = sources.pick(("message", "reverse_path"), sources.file.message.reverse_path)
    if said is None:
        return ""
    text = said.value.strip()
    if is_template(text):
        template = one_line(sources, "reverse_path", text)
        return "" if template is None else template.text
    try:
        # What stands for the recipient is checked when the message is.
        filled = Address.parse(text.replace("{verp}", "a").replace("{bounce}", "a"))
    except AddressError as error:
        sources.problems.add(f"{said}: {error}", 'write reverse_path = "bounces@shop.example", or leave it out')
        return ""
    return text if "{verp}" in text or "{bounce}" in text else filled.wire


def _unsubscribe(sources: Sources, table: UnsubscribeTable | None) -> Unsubscribe | None:
    if table is None:
        return None
    path: KeyPath = ("message", "unsubscribe")
    if not (table.https or table.mailto):
        sources.problems.add(
            f"{sources.place(path)}: says neither https nor mailto", 'write https = "https://shop.example/u/{token}"'
        )
    return Unsubscribe(table.https or "", table.mailto or "", _key_source(sources, table, path))


def _dkim(sources: Sources, tables: Sequence[DkimTable]) -> tuple[Dkim, ...]:
    found = []
    for number, table in enumerate(tables):
        path: KeyPath = ("message", "dkim", number)
        if path not in sources.lines:
            path = ("message", "dkim")
        for key, value, example in (("domain", table.domain, "shop.example"), ("selector", table.selector, "s1")):
            if not value and (*path, key) not in sources.broken:
                sources.problems.add(f"{sources.place(path)}: has no {key}", f'write {key} = "{example}" below it')
        if table.preset and table.preset not in PRESETS:
            said = Said(table.preset, sources.place((*path, "preset")), sources.home)
            known = ", ".join(show(name) for name in PRESETS if name)
            fix = did_you_mean(table.preset, PRESETS) or f"known are {known}"
            sources.problems.add(f"{said}: is not a relay with habits to be minded", fix)
        source = _key_source(sources, table, path)
        found.append(Dkim(table.domain or "", table.selector or "", table.preset or "", source))
    return tuple(found)


def _key_source(sources: Sources, table: UnsubscribeTable | DkimTable, path: KeyPath) -> str:
    """What `key_from` says.  The values are not repeated in faults: one may be the key itself."""
    named = {"key_file": table.key_file, "key_env": table.key_env, "key_command": table.key_command}
    given = {key: value for key, value in named.items() if value is not None}
    if len(given) != 1:
        if not any(broken[: len(path)] == path for broken in sources.broken):
            what = f"the key cannot come from {' and '.join(given)}" if given else "does not say where its key is"
            sources.problems.add(f"{sources.place(path)}: {what}", 'write key_file = "key.pem", key_env or key_command')
        return ""
    (key, value), *_ = given.items()
    if not value.strip() or has_control(value) or (key == "key_env" and not _VARIABLE_NAME.fullmatch(value)):
        fix = 'write key_env = "SHOP_KEY"' if key == "key_env" else f"fill it in, or leave {key} out"
        sources.problems.add(f"{sources.place((*path, key))}: is not {_KINDS[key]}", fix)
        return ""
    if key == "key_file":
        value = str(resolve(Said(value, key, sources.home)).absolute())
    return f"{key.removeprefix('key_')}:{value}"


_KINDS = {
    "key_file": "the name of a file",
    "key_env": "the name of an environment variable",
    "key_command": "a command",
}


def locality(sources: Sources) -> dict[str, Any]:
    """The parts of a `Campaign` that these settings make.  Faults are reported."""
    return {"locale": _locale(sources), "timezone": _timezone(sources)}


def _locale(sources: Sources) -> Template | None:
    written = sources.file.message.locale
    said = sources.pick(("message", "locale"), written)
    if said is None:
        return None
    is_by_row = is_template(said.value)
    try:
        find_locale("en" if is_by_row else said.value)
    except UnknownLocale as error:
        sources.problems.add(f"{said}: {error}", 'write locale = "de_AT", or "{{ lang }}" for a column of the list')
    except ConfigError as error:
        sources.problems.add(f"{said}: {error}", error.hint)
    return one_line(sources, "locale", written)


def _timezone(sources: Sources) -> str:
    said = sources.pick(("message", "timezone"), sources.file.message.timezone)
    if said is None:
        return ""
    try:
        find_zone(said.value or "?")
    except ConfigError as error:
        sources.problems.add(f"{sources.place(('message', 'timezone'))}: {error}", error.hint)
    return said.value
