"""All that one run goes by, settled: campaign, list, relay and pace in one frozen `Settings`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.errors import AddressError, ConfigError, TemplateError
from bulkmail.model.lazy import dataclass
from bulkmail.model.notification import NotifySettings
from bulkmail.model.pace import Pace
from bulkmail.model.recipient import parse_mailbox, parse_mailboxes
from bulkmail.model.relay import Relay
from bulkmail.model.route import Route
from bulkmail.model.schedule import Schedule
from bulkmail.model.suppression import SuppressionReason
from bulkmail.model.tally import MOST_INVALID
from bulkmail.settings.dating import dated
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.problems import Problems, Said, show
from bulkmail.settings.suppressions import SuppressionSettings, build_suppressions

if TYPE_CHECKING:
    from bulkmail.settings.campaign_files import FileReader
    from bulkmail.settings.layers import Sources

STANDARD_INPUT = "-"
NOTHING_TYPED = Overrides()


@dataclass(frozen=True, slots=True)
class ListSettings:
    """How to read the list; empty: found out.  `name_column` None: no column holds the names."""

    address_column: str = ""
    name_column: str | None = ""
    encoding: str = ""
    sheet: str = ""
    header_row: int = 0
    keep_space: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run needs to know, with no file of the campaign left to read but the list.

    `list_source` is a path, `"-"` for standard input, or empty when `to` names the people or the caller brings them;
    `suppress` are paths.  Relative ones start from the current folder.
    `address` makes each row's address, where that is not just a cell.
    `name` is the campaign's, or, by flags alone, the list's; `home` is the folder whose `runs/` keeps the outbox.
    `files` are those that it was read from, the list among them; `notices` say what was read otherwise than written.
    `suppressions` say which suppression list holds, and what of it.  `notify` is what the campaign itself says of that.
    `schedule` is when each recipient is sent to; None is at once.
    `is_folder` says whether there is a `campaign.toml` or a message file, which then names the outbox.
    """

    name: str
    home: Path
    is_folder: bool
    campaign: Campaign
    list_source: str = ""
    list_options: ListSettings = field(default_factory=ListSettings)
    address: Template | None = None
    where: str = ""
    suppress: tuple[str, ...] = ()
    allow_duplicates: bool = False
    allow_empty: bool = False
    most_invalid: float = MOST_INVALID
    to: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    pace: Pace = field(default_factory=Pace)
    schedule: Schedule | None = None
    suppressions: SuppressionSettings = SuppressionSettings()
    notify: NotifySettings = NotifySettings()
    files: tuple[Path, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The absolute paths of `files`."""
        return tuple(os.path.abspath(file) for file in self.files)

    @property
    def relay(self) -> Relay | None:
        """The first of the relays; None when none is named."""
        return self.routes[0].relay if self.routes else None


def load(
    campaign: str | None,
    overrides: Overrides = NOTHING_TYPED,
    *,
    environ: Mapping[str, str] = os.environ,
    needs_list: bool = True,
    drafts: Mapping[str, str] | None = None,
) -> Settings:
    """Reads the campaign (a folder with `campaign.toml`, a `.toml` or message file, None for flags alone).

    `needs_list=False`: the caller brings the people.  `drafts` are texts by absolute path, read in place of the files
    there: what an editor has not saved yet.  Raises `ConfigError` with every fault there is, and no secret.
    """
    from bulkmail.settings.campaign_files import FileReader
    from bulkmail.settings.layers import open_sources
    from bulkmail.settings.message_table import build_campaign
    from bulkmail.settings.notify_settings import build_notify
    from bulkmail.settings.pacing import build_pace, build_schedule
    from bulkmail.settings.relay_settings import build_routes

    problems = Problems()
    sources = open_sources(campaign, overrides, environ=environ, problems=problems, drafts=drafts)
    reader = FileReader(problems, sources.home, drafts=drafts or {})
    list_source = _list_source(sources, reader, needs_list=needs_list)
    name = _name(sources, list_source)
    settings = Settings(
        name=name,
        home=sources.home,
        is_folder=sources.path is not None,
        campaign=build_campaign(sources, reader, name=name),
        list_source=list_source,
        list_options=_list_options(sources),
        address=_address(sources),
        where=_where(sources),
        suppress=_suppress(sources, reader),
        allow_duplicates=_allow_duplicates(sources),
        allow_empty=sources.file.recipients.allow_empty,
        most_invalid=MOST_INVALID if (share := sources.file.recipients.max_invalid) is None else share,
        to=_to(sources),
        routes=build_routes(sources, reader),
        pace=build_pace(sources),
        schedule=build_schedule(sources),
        suppressions=build_suppressions(sources),
        notify=build_notify(sources.file.notify, sources),
        notices=(*sources.notices, *_notices(sources)),
    )
    _check_list_mail(settings, sources)
    settings = replace(settings, files=(*reader.found, *([sources.path] if sources.path else [])))
    problems.raise_if_any(next_command=f"bulkmail check {campaign}" if campaign else "")
    return settings


def load_relay(campaign: str, *, name: str = "", environ: Mapping[str, str] = os.environ) -> Relay | None:
    """The relay that the campaign names, or, of several, the one called `name`.  Raises `ConfigError`.

    Its message and its list are not read.
    """
    from bulkmail.settings.campaign_files import FileReader
    from bulkmail.settings.layers import open_sources
    from bulkmail.settings.relay_settings import build_routes

    problems = Problems()
    sources = open_sources(campaign, NOTHING_TYPED, environ=environ, problems=problems)
    routes = build_routes(sources, FileReader(problems, sources.home))
    problems.raise_if_any(next_command="")
    found = [route for route in routes if not name or route.label == name]
    if len(found) > 1 or (name and not found):
        labels = ", ".join(route.label for route in routes)
        raise ConfigError(
            f"{campaign}: has no relay {show(name)}" if name else f"{campaign}: has several relays",
            hint=f"add --relay NAME; there is {labels}" if labels else "",
        )
    return found[0].relay if found else None


def _name(sources: Sources, list_source: str) -> str:
    if sources.file.name is not None and sources.file.name.strip():
        return dated(" ".join(sources.file.name.split()))
    if sources.path is not None:
        from bulkmail.settings.layers import FILE_NAME

        return sources.path.absolute().parent.name if sources.path.name == FILE_NAME else sources.path.stem
    if list_source == STANDARD_INPUT:
        return "stdin"
    return Path(list_source).name.partition(".")[0] if list_source else "message"


def _list_source(sources: Sources, reader: FileReader, *, needs_list: bool) -> str:
    overrides = sources.overrides
    if overrides.to:
        if overrides.recipients is not None:
            sources.problems.add("--to and --recipients: the people are named twice", "keep one of them")
        return ""
    said = sources.pick(
        ("recipients", "file"), sources.file.recipients.file, flag="--recipients", typed=overrides.recipients
    )
    if said is None:
        if needs_list and not any(path[0] == "recipients" for path in sources.broken):
            _tell_no_list(sources)
        return ""
    if said.value == STANDARD_INPUT:
        return STANDARD_INPUT if reader.take_standard_input(said) else ""
    path = reader.exists(said)
    return "" if path is None else str(path)


def _tell_no_list(sources: Sources) -> None:
    if sources.path and not sources.is_message_file:
        text, file = f"{sources.path}: does not say whom to write to", 'write recipients = "people.csv", or '
    else:
        text, file = "--recipients is missing: it says whom to write to", ""
    sources.problems.add(text, f"{file}add --recipients FILE or --to ADDRESS")


def _list_options(sources: Sources) -> ListSettings:
    from bulkmail.message.header.addresses import column_of
    from bulkmail.settings.message_table import row_address

    recipients, address = sources.file.recipients, row_address(sources)
    return ListSettings(
        address_column=recipients.address_column or (column_of(address.text) if address else ""),
        # The TO of a message file says itself what name stands there.
        name_column=None if sources.is_message_file else recipients.name_column or "",
        encoding=recipients.encoding or "",
        sheet=recipients.sheet or "",
        header_row=recipients.header_row or 0,
        keep_space=recipients.keep_space,
    )


def _address(sources: Sources) -> Template | None:
    from bulkmail.message.header.addresses import RowAddress, is_same_for_all
    from bulkmail.settings.message_table import row_address
    from bulkmail.settings.parsers import parse_one_line

    said = sources.pick(("recipients", "address"), sources.file.recipients.address)
    if said is None:
        return None
    column = ("recipients", "address_column")
    if sources.file.recipients.address_column is not None and column not in sources.flags:
        sources.problems.add(f"{said}: address_column names the address, too", "keep one of them")
    elif not said.value.strip():
        sources.problems.add(f"{said}: is empty", 'write address = "{{ login }}@shop.example", or leave it out')
    else:
        try:
            parse_one_line(said.value)
            if is_same_for_all(said.value):
                parse_mailboxes(said.value)
            template = row_address(sources)
            if template is not None:
                RowAddress(template)
            return template
        except AddressError as error:
            sources.problems.add(f"{said}: {error}", 'write an address such as "{{ login }}@shop.example"')
        except TemplateError as error:
            sources.problems.add(str(error), error.hint)
        except ConfigError as error:
            sources.problems.add(f"{said}: {error}", error.hint)
    return None


def _allow_duplicates(sources: Sources) -> bool:
    from bulkmail.message.header.addresses import is_same_for_all
    from bulkmail.settings.message_table import row_address

    if sources.file.recipients.allow_duplicates:
        return True
    # Rows that all go to one address are meant to: there is nothing else for them to differ in.
    address = row_address(sources)
    return address is not None and is_same_for_all(address.text)


def _where(sources: Sources) -> str:
    if not sources.overrides.to:
        return sources.file.recipients.where or ""
    # A row made of a bare address has no fields: a condition would leave out the very person that was named.
    if ("recipients", "where") in sources.flags:
        sources.problems.add("--where: chooses from a list, and --to names the people", "keep one of them")
    return ""


def _suppress(sources: Sources, reader: FileReader) -> tuple[str, ...]:
    """The file's and the flags' together: a flag never removes an entry."""
    said = [
        Said(name, sources.place(("recipients", "suppress", number)), sources.home)
        for number, name in enumerate(sources.file.recipients.suppress)
    ]
    said += [sources.typed("--suppress", name) for name in sources.overrides.suppress]
    return tuple(str(path) for path in map(reader.exists, said) if path is not None)


def _check_list_mail(settings: Settings, sources: Sources) -> None:
    """A campaign with a list or a way to unsubscribe that does not apply what people said by it is a fault."""
    campaign = settings.campaign
    if SuppressionReason.UNSUBSCRIBE in settings.suppressions.apply:
        return
    if not campaign.is_list_mail:
        return
    what = "list headers"
    if campaign.list_id is not None or campaign.unsubscribe is not None:
        what = "list_id" if campaign.unsubscribe is None else "an unsubscribe link"
    sources.problems.add(
        f'{settings.suppressions.place}: leaves out "unsubscribe", and the message has {what}: recipients who'
        " unsubscribed would get mail again",
        'add "unsubscribe" to apply',
    )


def _to(sources: Sources) -> tuple[str, ...]:
    for address in sources.overrides.to:
        try:
            parse_mailbox(address)
        except AddressError as error:
            said = sources.typed("--to", address)
            sources.problems.add(f"{said}: {error}", 'write --to ann@example.com or --to "Ann Li <ann@example.com>"')
    return sources.overrides.to[:1] if sources.overrides.together else sources.overrides.to


def _notices(sources: Sources) -> tuple[str, ...]:
    number = len(sources.overrides.to)
    if not sources.overrides.together or number < 2:
        return ()
    return (f"--together: one message goes to {number} addresses, and each recipient sees all of them",)
