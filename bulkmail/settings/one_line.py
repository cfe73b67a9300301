"""Settings of one line that are templates: checked as far as they can be before a row fills them in."""

from __future__ import annotations

import re

from bulkmail.model.campaign import Template, is_template
from bulkmail.model.errors import AddressError
from bulkmail.model.recipient import has_control, parse_mailbox
from bulkmail.settings.layers import Sources
from bulkmail.settings.problems import Said

EXAMPLE_SENDER = "Corner Shop <hello@shop.example>"


def template_of(sources: Sources, said: Said[str], key: str) -> Template:
    """What was said as a template, by the name that errors call it by."""
    return Template(said.place if said.place.startswith("--") else sources.template_name(key), said.value)


def one_line(
    sources: Sources, key: str, written: str | None, *, flag: str = "", typed: str | None = None
) -> Template | None:
    """A template of one line."""
    said = sources.pick(("message", key), written, flag=flag, typed=typed)
    if said is None:
        return None
    return None if has_strange(sources, said) else template_of(sources, said, key)


def has_strange(sources: Sources, said: Said[str]) -> bool:
    """Whether `said` has a character that no header can have.  Line ends are made into spaces later on."""
    if not has_control(re.sub(r"[\t\r\n]", " ", said.value)):
        return False
    sources.problems.add(f"{said}: holds a control character", "type it again")
    return True


def check_mailbox(sources: Sources, said: Said[str]) -> None:
    """An address that is the same for all is checked now; one with a template when it is rendered."""
    if is_template(said.value) or has_control(said.value):
        return
    try:
        parse_mailbox(said.value)
    except AddressError as error:
        sources.problems.add(f"{said}: {error}", f'write it as "{EXAMPLE_SENDER}"')
