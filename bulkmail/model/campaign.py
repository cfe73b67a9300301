"""What is to be said to everybody: sender, letter, headers, enclosures; a snapshot that needs no files any more."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class Template:
    """A Jinja text and the name that errors call it by: a file's, or `campaign.toml: subject`."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that everybody gets.  `content_type` is `type/subtype`."""

    filename: str
    content_type: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Campaign:
    """Everything that shapes a message except the row it is for.

    `sender` (From), `subject`, `to_name`, `reply_to` and the values of `headers` are one-line templates.  At least one
    of `text` and `html` is given.  `partials` are the templates that others include or extend, by the name they are
    included under.  `reverse_path` is an address; empty means the address of From.
    """

    name: str
    sender: Template
    subject: Template
    text: Template | None = None
    html: Template | None = None
    to_name: Template | None = None
    reply_to: Template | None = None
    headers: tuple[tuple[str, Template], ...] = ()
    attachments: tuple[Attachment, ...] = ()
    partials: tuple[Template, ...] = ()
    reverse_path: str = ""

    @property
    def fingerprint(self) -> str:
        """32 hex digits that change exactly when some recipient's message might.

        The names of campaign and templates do not count: a moved folder is still the same letter.
        """
        state = blake2b(digest_size=16)
        for part in fields(self):
            if part.name != "name":
                _feed(state, part.name, getattr(self, part.name), in_partials=part.name == "partials")
        return state.hexdigest()


def _feed(state: blake2b, label: str, value: object, *, in_partials: bool = False) -> None:
    """Adds `value` with its length in front, so that no two different campaigns feed the same octets."""
    match value:
        case None:
            data = b""
        case str():
            data = value.encode("utf-8", "surrogatepass")
        case Template():
            data = value.text.encode("utf-8", "surrogatepass")
            if in_partials:  # others include it under this name
                _feed(state, "name", value.name)
        case Attachment():
            _feed(state, "filename", value.filename)
            _feed(state, "content_type", value.content_type)
            data = value.content
        case tuple():
            data = str(len(value)).encode()
            for item in value:
                _feed(state, "item", item, in_partials=in_partials)
        case _:
            raise AssertionError(f"a campaign part of an unknown type: {type(value)}")
    state.update(f"{label}:{type(value).__name__}:{len(data)}:".encode())
    state.update(data)
