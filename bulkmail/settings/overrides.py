"""What flags may say about a campaign: each overrides, or is added to, what its file says."""

from __future__ import annotations

from bulkmail.model.lazy import dataclass

FLAGS = {
    "--from": ("message", "from"),
    "--subject": ("message", "subject"),
    "--encoding": ("recipients", "encoding"),
    "--address-column": ("recipients", "address_column"),
    "--sheet": ("recipients", "sheet"),
    "--header-row": ("recipients", "header_row"),
    "--keep-space": ("recipients", "keep_space"),
    "--where": ("recipients", "where"),
    "--group-by": ("recipients", "group_by"),
    "--allow-duplicates": ("recipients", "allow_duplicates"),
    "--allow-empty": ("recipients", "allow_empty"),
    "--max-invalid": ("recipients", "max_invalid"),
    "--rate": ("sending", "rate"),
    "--quota": ("sending", "quota"),
    "--window": ("sending", "window"),
    "--start": ("sending", "start"),
    "--ramp": ("sending", "ramp"),
    "--canary": ("sending", "canary"),
    "--wait": ("sending", "wait"),
    "--processes": ("sending", "processes"),
    "--retry": ("sending", "retry", "recipient"),
    "--send-at": ("sending", "send_at"),
    "--timezone": ("sending", "timezone"),
    "--connections": ("sending", "connections"),
}
"""The flags that say what a key of a campaign says, and are read as it is."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """The flags of `send`, `check` and `preview` as they were typed; None, empty or False: not given.

    Paths are relative to the current folder.  `recipients`, `text` and `html` may be `"-"`, standard input.
    `attach`, `headers`, `values` and `suppress` are added to the file's, a header or value of the same name replaces
    it; `group_by` takes the place of the file's columns, `to` that of the list (one message for all of them if
    `together`), and `relays` (or `relay`, the only one) that of all `[relay]` tables, so that no password goes to
    another server.
    """

    recipients: str | None = None
    to: tuple[str, ...] = ()
    together: bool = False
    sender: str | None = None
    subject: str | None = None
    text: str | None = None
    html: str | None = None
    attach: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    relay: str | None = None
    relays: tuple[str, ...] = ()
    where: str | None = None
    suppress: tuple[str, ...] = ()
    encoding: str | None = None
    address_column: str | None = None
    sheet: str | None = None
    header_row: int | None = None
    keep_space: bool = False
    allow_duplicates: bool = False
    group_by: tuple[str, ...] = ()
    allow_empty: bool = False
    max_invalid: str | None = None
    rate: str | None = None
    connections: int | None = None
    retry: str | None = None
    wait: str | None = None
    processes: str | None = None
    limit: int | None = None
    quota: str | None = None
    window: str | None = None
    start: str | None = None
    ramp: str | None = None
    canary: int | None = None
    send_at: str | None = None
    timezone: str | None = None

    @property
    def typed(self) -> dict[str, object]:
        """What was typed of `FLAGS`."""
        names = {flag: flag[2:].replace("-", "_") for flag in FLAGS} | {"--from": "sender"}
        found = {flag: getattr(self, name) for flag, name in names.items()}
        return {flag: value for flag, value in found.items() if value not in (None, ()) and value is not False}

    @property
    def has_message(self) -> bool:
        """Whether a message is given by flags, so that no campaign is looked for."""
        return self.text is not None or self.html is not None

    @property
    def begins_message(self) -> bool:
        """Whether a message is given by flags, even if incomplete."""
        return self.has_message or self.sender is not None or self.subject is not None
