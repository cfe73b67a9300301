"""What is to be said to everyone: sender, message, headers, attachments, keys; a snapshot that needs no files."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import field, fields
from hashlib import blake2b

from bulkmail.model.lazy import dataclass
from bulkmail.model.relay import Secret

# -- Names of files as people see them: Macs write an accent as a character of its own, others as a part of the letter.


def composed(name: str) -> str:
    """The name with each accent in its letter (NFC), as everything but a Mac writes it."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def same_name(wanted: str, names: Iterable[str]) -> str:
    """That of `names` which differs from `wanted` only in how accents are written; empty if there is none."""
    if wanted.isascii():
        return ""
    plain = composed(wanted)
    return min((name for name in names if composed(name) == plain), default="")


def other_case(wanted: str, names: Iterable[str]) -> str:
    """That of `names` which differs from `wanted` only in upper and lower case; empty if there is none."""
    plain = composed(wanted).casefold()
    return min((name for name in names if composed(name).casefold() == plain), default="")


# -- The keys that messages are signed with: passed to the code that writes messages, and stored nowhere.


@dataclass(frozen=True, slots=True)
class BounceKey:
    """`key`, in hexadecimal, signs the tokens of the run that has the number `run` in the register of runs, from 1.

    A run that reaches no recipient has the number 0.
    """

    run: int
    key: Secret


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """`unsubscribe` signs the tokens of `Campaign.unsubscribe`; `dkim` are private keys in PEM, one for each `Dkim`.

    `bounce` signs what bounces are matched by; without it tokens are made that match nothing, as for a preview.
    """

    unsubscribe: Secret | None = None
    dkim: tuple[Secret, ...] = ()
    bounce: BounceKey | None = None


NO_KEYS = Keys()


# -- What is to be said to everyone: sender, message, headers, enclosures; a snapshot that needs no files any more.


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    """A Jinja text and the name that errors call it by: a file's, or `campaign.toml: subject`."""

    name: str
    text: str


def is_template(text: str) -> bool:
    """Whether a value has to be rendered for each row: it holds a tag of Jinja."""
    return "{{" in text or "{%" in text or "{#" in text


@dataclasses.dataclass(frozen=True, slots=True)
class Attachment:
    """A file that everyone gets.  `content_type` is `type/subtype`."""

    filename: str
    content_type: str
    content: bytes = field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Where people go who want no more of these messages; `{token}` in either says who it is.  One may be empty.

    `https` takes the one-click POST of RFC 8058, `mailto` is an address, perhaps with `?subject=…`.  `key_from` names
    where the key comes from that signs the tokens: `"env:NAME"`, `"file:PATH"`, `"command:…"`, or empty when a program
    brings it.
    """

    https: str = ""
    mailto: str = ""
    key_from: str = field(default="", repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Dkim:
    """A signature of RFC 6376: whose it is and where its public key is found, `selector._domainkey.domain`.

    `preset` names a relay whose habits are to be minded, or is empty.  `key_from` is as of `Unsubscribe`.
    """

    domain: str
    selector: str
    preset: str = ""
    key_from: str = field(default="", repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class RowAttachment:
    """A file of the row's own: `path` is a one-line template, relative to the folder `root`, which it cannot leave.

    The first `prefix` characters of the path are what `root` stands for, where the campaign itself names a folder
    elsewhere.  `filename`, a template, is what the reader sees; None takes it from the path, and an empty
    `content_type` is guessed from it.  With `is_optional` an empty path means no file; without, it is an error.
    """

    path: Template
    root: str
    filename: Template | None = None
    content_type: str = ""
    is_optional: bool = False
    prefix: int = 0


@dataclass(frozen=True, slots=True)
class RowPictures:
    """Where the pictures are that the HTML names for each row: below the folder `root`, which no cell can leave.

    A name is looked for in its folder `beside`, where the page is, and then in `root` itself.  With `are_attached` a
    picture that a row attaches as well is shown only.
    """

    root: str
    beside: str = ""
    are_attached: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class InlineImage:
    """A picture that the HTML shows and the message brings along; `source` is what the HTML calls it."""

    source: str
    filename: str
    content_type: str
    content: bytes = field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Campaign:
    """Everything that shapes a message except the row it is for, and the keys, which are kept nowhere.

    `sender` (From), `subject`, `to_name`, `reply_to` and the values of `headers` are one-line templates.  At least one
    of `text` and `html` is given.  `partials` are the templates that others include or extend, by the name they are
    included under.  `reverse_path` is an address, a template of one, or has `{verp}` in it for the address that is
    written to; empty means the address of Sender, or else From.

    `to`, `cc` and `bcc` are templates of lists of mailboxes that get the message too, `to` beside the row's own.
    `sent_by` is a template of the mailbox that Sender names where it is not the one of From.

    `markdown` or `mjml` may stand for `html`, and a missing `text` is made of the HTML.  `preheader` is one line that
    lists of mail show beside the subject, `calendar` an iCalendar object.  `images` and `stylesheets` are the local
    files that the HTML names (`src`, `href`).  `inline_css` writes its style sheets into its elements.

    Without `has_subject` there is no Subject header, and `subject` is not used.

    `locale` is a template of the locale that filters such as `date` write by, `timezone` the name of the zone whose
    clock `now` shows.  `moment` is what `now` and `today` say, in ISO 8601 with the offset; a run sets it when it
    begins, and it is empty before.  `data` is a JSON object: the values that every template finds by their names, where
    the row has no such field; empty for none.  `variants` are those that recipients are divided among, each with
    its share.  `follows` is the id of the run whose messages these answer, empty for none.  `group_by` are the columns
    whose values rows share that get one message together; empty for a message for each row.  `row_pictures` is given
    where the HTML names pictures that depend on the row.
    It has more attributes than a class should: each is one part of what people write, and all go into one digest.
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
    to: Template | None = None
    cc: Template | None = None
    bcc: Template | None = None
    sent_by: Template | None = None
    list_id: Template | None = None
    feedback_id: Template | None = None
    unsubscribe: Unsubscribe | None = None
    dkim: tuple[Dkim, ...] = ()
    markdown: Template | None = None
    mjml: Template | None = None
    preheader: Template | None = None
    calendar: Template | None = None
    images: tuple[InlineImage, ...] = ()
    stylesheets: tuple[Template, ...] = ()
    inline_css: bool = True
    row_attachments: tuple[RowAttachment, ...] = ()
    has_subject: bool = True
    locale: Template | None = None
    timezone: str = ""
    moment: str = ""
    data: str = ""
    variants: tuple[tuple[str, int], ...] = ()
    follows: str = ""
    group_by: tuple[str, ...] = ()
    row_pictures: RowPictures | None = None

    @property
    def is_list_mail(self) -> bool:
        """Whether its message says that it goes to a list: List-ID, or a way to unsubscribe."""
        names = {name.lower() for name, _ in self.headers}
        return self.list_id is not None or self.unsubscribe is not None or not names.isdisjoint(_LIST_HEADERS)

    def bodies(self) -> Iterator[Template]:
        """What people read below the header, and beside the subject."""
        bodies = (self.text, self.html, self.markdown, self.mjml, self.preheader, self.calendar)
        return (template for template in bodies if template is not None)

    def templates(self) -> Iterator[Template]:
        """All that is rendered for a message, but what these include: that is in `partials`."""
        names = (self.sender, self.subject, self.locale, self.to_name, self.reply_to)
        lists = (self.to, self.cc, self.bcc, self.sent_by, self.list_id, self.feedback_id)
        yield from (template for template in (*names, *self.bodies(), *lists) if template is not None)
        if self.reverse_path:
            yield Template("reverse_path", self.reverse_path)
        yield from (template for _, template in self.headers)
        for attachment in self.row_attachments:
            yield attachment.path
            if attachment.filename is not None:
                yield attachment.filename

    @property
    def fingerprint(self) -> str:
        """32 hex digits that change exactly when some recipient's message might.

        The names of campaign and templates do not count: a moved folder is still the same message.  Nor do keys and
        where they come from: a new one signs the same message.  Nor does `moment`, which is the run's.
        """
        state = blake2b(digest_size=16)
        for part in fields(self):
            value = getattr(self, part.name)
            # What came after the first version counts only where it is used: older outboxes have fingerprints without.
            if part.name not in _NOT_THE_MESSAGE and (part.name in _FIRST_PARTS or value != part.default):
                if part.name == "variants":
                    value = tuple(f"{name}:{share}" for name, share in self.variants)
                _feed(state, part.name, value, in_partials=part.name in _NAMED_PARTS)
        return state.hexdigest()


_LIST_HEADERS = frozenset({"list-id", "list-unsubscribe"})
_FIRST_PARTS = frozenset(
    "sender subject text html to_name reply_to headers attachments partials reverse_path".split()  # noqa: SIM905
)
_NOT_THE_MESSAGE = frozenset({"name", "moment"})
_NAMED_PARTS = frozenset({"partials", "stylesheets"})  # others name them


def _feed(state: blake2b, label: str, value: object, *, in_partials: bool = False) -> None:
    """Adds `value` with its length in front, so that no two different campaigns feed the same bytes."""
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
        case Unsubscribe():
            _feed(state, "https", value.https)
            data = value.mailto.encode("utf-8", "surrogatepass")
        case Dkim():
            _feed(state, "domain", value.domain)
            _feed(state, "selector", value.selector)
            data = value.preset.encode("utf-8", "surrogatepass")
        case InlineImage():
            _feed(state, "source", value.source)
            _feed(state, "filename", value.filename)
            _feed(state, "content_type", value.content_type)
            data = value.content
        case RowAttachment():  # not its root: a moved folder is still the same message
            _feed(state, "filename", value.filename)
            _feed(state, "content_type", value.content_type)
            _feed(state, "is_optional", value.is_optional)
            data = value.path.text.encode("utf-8", "surrogatepass")
        case RowPictures():  # nor its root
            _feed(state, "beside", value.beside)
            _feed(state, "are_attached", value.are_attached)
            data = b""
        case bool():
            data = b"yes" if value else b"no"
        case tuple():
            data = str(len(value)).encode()
            for item in value:
                _feed(state, "item", item, in_partials=in_partials)
        case _:
            raise AssertionError(f"a campaign part of an unknown type: {type(value)}")
    state.update(f"{label}:{type(value).__name__}:{len(data)}:".encode())
    state.update(data)
