"""Who else gets the message, who answers for it, how people get off the list: as parts of a `Campaign`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bulkmail.message.dkim import PRESETS
from bulkmail.message.header.row_address import with_others
from bulkmail.model.address import Address, has_control
from bulkmail.model.campaign import Dkim, Template, Unsubscribe
from bulkmail.model.errors import AddressError
from bulkmail.model.pattern import lazy_pattern
from bulkmail.settings.files import resolve
from bulkmail.settings.lines import check_mailbox, one_line
from bulkmail.settings.locator import KeyPath
from bulkmail.settings.problems import Said, show
from bulkmail.settings.schema import DkimTable, UnsubscribeTable
from bulkmail.settings.sources import Sources
from bulkmail.text import did_you_mean

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
    if "{{" in text or "{%" in text:
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
