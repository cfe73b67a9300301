"""Recipients: their addresses, one person of the list with the fields of the row, and the variant for each."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern

if TYPE_CHECKING:
    from email_validator import EmailNotValidError

# -- Mail addresses: one checked mailbox, as it goes on the wire and as people read it.


LONGEST_LOCAL_PART = 64  # bytes, RFC 5321 §4.5.3.1.1
LONGEST_ADDRESS = 254  # bytes: a path of 256 less its angle brackets, RFC 5321 §4.5.3.1.3
LONGEST_CELL = 1_000  # characters; a name and an address are shorter than this, an attack may not be

# What nearly every address looks like; anything else takes the long way through email-validator.
_PLAIN_LOCAL_PART = lazy_pattern(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*")
_PLAIN_DOMAIN = lazy_pattern(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}")


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """A checked mailbox (RFC 5321 §4.1.2, RFC 6531): never contains a control character, a space or an angle bracket.

    `local` is kept as written; `domain` is lower-case ASCII, with A-labels for an international name (RFC 5891).
    """

    local: str
    domain: str

    @property
    def wire(self) -> str:
        """What goes between the angle brackets of MAIL and RCPT."""
        return f"{self.local}@{self.domain}"

    @property
    def readable(self) -> str:
        """The address as people know it: an international domain in its own script."""
        return f"{self.local}@{_readable_domain(self.domain)}"

    @property
    def key(self) -> str:
        """Equal for two spellings of one mailbox.  Case is ignored: no provider of note tells `Ann@` from `ann@`."""
        return f"{unicodedata.normalize('NFC', self.local).casefold()}@{self.domain}"

    @property
    def needs_smtputf8(self) -> bool:
        """Only a local part outside ASCII needs SMTPUTF8 (RFC 6531); a domain always has an ASCII form."""
        return not self.local.isascii()

    def __str__(self) -> str:
        return self.readable

    @classmethod
    def parse(cls, text: str) -> Address:
        """The mailbox in `text`, a bare `local@domain`.  Raises `AddressError` with the reason."""
        if len(text) > LONGEST_ADDRESS:
            raise AddressError(f"is longer than {LONGEST_ADDRESS} characters")
        local, at, domain = text.rpartition("@")
        if not at:
            raise AddressError("is empty" if not text else "has no @")
        address = cls(_checked_local_part(local), _checked_domain(domain))
        if (not text.isascii() or "xn--" in address.domain) and _encoded(text, address) > LONGEST_ADDRESS:
            raise AddressError(f"is longer than {LONGEST_ADDRESS} bytes")
        return address


def parse_mailbox(cell: str) -> tuple[str, Address]:
    """The display name (perhaps empty) and the address in a cell: `a@b.c` or `Name <a@b.c>` or `"Name, Jr" <a@b.c>`.

    Exactly one address is taken; a cell that holds several raises `AddressError`, as does anything unusable.
    """
    if plain := plain_address(cell):  # what nearly every cell holds: worth a microsecond of a million rows
        return "", Address(*plain)
    text = cell.strip()
    if len(text) > LONGEST_CELL:
        raise AddressError(f"is longer than {LONGEST_CELL} characters")
    if not text.endswith(">"):
        if text.count("@") > 1 and re.search(r"[,;\s]", text):
            raise AddressError("holds several addresses; one row is for one person")
        return "", Address.parse(text)
    name, bracket, address = text[:-1].rpartition("<")
    if not bracket:
        raise AddressError("has a > without a <")
    if "<" in name or ">" in name:
        raise AddressError("holds several addresses; one row is for one person")
    return _unquoted(name.strip()), Address.parse(address.strip())


def plain_address(cell: str) -> tuple[str, str] | None:
    """Local part and domain of a cell that needs no second look to be an address; None for any other cell.

    Both are ASCII, so `Address.key` is the address in lower case.
    """
    local, _, domain = cell.rpartition("@")
    if len(cell) <= LONGEST_ADDRESS and len(local) <= LONGEST_LOCAL_PART and _PLAIN_LOCAL_PART.fullmatch(local):
        plain = _plain_domain(domain)
        if plain:
            return local, plain
    return None


def parse_mailboxes(cell: str) -> list[tuple[str, Address]]:
    """The display names and addresses in a cell that may hold several, with commas or semicolons between them.

    A comma inside quotes or angle brackets divides nothing, and nothing between two commas is passed over.  Raises
    `AddressError` that names the one that is wrong.
    """
    return [_one_of_several(piece) for piece in split_list(cell) if piece.strip()]


def split_list(text: str, *, kept: str = "") -> list[str]:
    """`text` divided at commas and semicolons outside quotes, angle brackets and what the pattern `kept` fits."""
    unit = re.compile(f"{kept}{'|' if kept else ''}" + r'"(?:[^"\\]|\\.)*"|<[^<>]*>|[^,;"<{]+|["<{]', re.DOTALL)
    pieces = [""]
    position = 0
    while position < len(text):
        found = unit.match(text, position)
        if found is None:  # a comma or a semicolon
            pieces.append("")
            position += 1
        else:
            pieces[-1] += found[0]
            position = found.end()
    return pieces


def _one_of_several(piece: str) -> tuple[str, Address]:
    try:
        return parse_mailbox(piece)
    except AddressError as error:
        shown = " ".join(piece.split())[:80]
        raise AddressError(f"has {ascii(shown) if has_control(shown) else repr(shown)}, which {error}") from None


def has_control(text: str) -> bool:
    """Whether `text` has a character that could end a header or move a terminal: controls, line separators, surrogates.

    TAB counts too: in a name or an address it is never meant.
    """
    return _CONTROL.search(text) is not None


# C0, DEL, C1 (with U+0085), the two Unicode line separators, and lone surrogates, which no encoder takes.
_CONTROL = lazy_pattern("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _unquoted(name: str) -> str:
    if len(name) >= 2 and name[0] == name[-1] == '"':
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    elif "@" in name and re.search("[,;]", name):
        raise AddressError("holds several addresses; one row is for one person")
    if has_control(name):
        raise AddressError("has a control character in the name")
    return name


def _encoded(text: str, address: Address) -> int:
    """The length of the longest form of the address."""
    readable = unicodedata.normalize("NFC", address.readable)
    return max(len(form.encode()) for form in (text, address.wire, readable))


def _checked_local_part(local: str) -> str:
    if len(local) <= LONGEST_LOCAL_PART and _PLAIN_LOCAL_PART.fullmatch(local):
        return local
    if not local:
        raise AddressError("has nothing before the @")
    if len(local.encode("utf-8", "surrogatepass")) > LONGEST_LOCAL_PART:
        raise AddressError(f"has more than {LONGEST_LOCAL_PART} bytes before the @")
    from email_validator import EmailSyntaxError
    from email_validator.syntax import validate_email_local_part

    try:
        checked = validate_email_local_part(local, allow_smtputf8=True)
        # Normalising it later must not give another address: U+037E becomes a semicolon.
        validate_email_local_part(unicodedata.normalize("NFC", local), allow_smtputf8=True)
    except EmailSyntaxError as error:
        raise AddressError(_reason(error)) from None
    return str(checked["local_part"])


@lru_cache(maxsize=16_384)
def _plain_domain(domain: str) -> str:
    """The domain in lower case if there is nothing more to check, else "".  Cached: many people are at few domains."""
    lowered = domain.lower()
    return lowered if len(lowered) <= 253 and _PLAIN_DOMAIN.fullmatch(lowered) and "--" not in lowered else ""


@lru_cache(maxsize=16_384)
def _checked_domain(domain: str) -> str:
    """Cached, because IDNA is slow."""
    plain = _plain_domain(domain)
    if plain:
        return plain
    if not domain:
        raise AddressError("has nothing after the @")
    from email_validator import EmailNotValidError
    from email_validator.syntax import validate_email_domain_name

    try:
        # Reserved names such as example.test are for the relay to judge; people rehearse with them.
        checked = validate_email_domain_name(domain, test_environment=True)
    except EmailNotValidError as error:
        raise AddressError(_reason(error)) from None
    return str(checked["ascii_domain"]).lower()


@lru_cache(maxsize=16_384)
def _readable_domain(domain: str) -> str:
    if "xn--" not in domain:
        return domain
    from email_validator.syntax import validate_email_domain_name

    return str(validate_email_domain_name(domain, test_environment=True)["domain"])


def _reason(error: EmailNotValidError) -> str:
    """email-validator's own words, as the predicate of a sentence that begins with the address."""
    words = str(error).rstrip(".")
    return "is not valid: " + words[0].lower() + words[1:]


# -- One person of the list, and one row without a usable recipient.


class Place(NamedTuple):
    """Where a row came from: the file as the user named it, and its line (1-based; for a sheet, its row).

    One a row, made twice on its way: a tuple takes half as long to make as a frozen dataclass.
    """

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class RowFields(dict[str, object]):
    """The fields of one row of a message that several rows share; `_place` is where the row is.

    The name begins with `_` because templates, which get these values, cannot reach such names.
    """

    __slots__ = ("_place",)

    def __init__(self, fields: Mapping[str, object], place: Place) -> None:
        super().__init__(fields)
        self._place = place

    @staticmethod
    def place_of(row: object) -> Place | None:
        """Where the row is; None for a value that is none of these."""
        return row._place if isinstance(row, RowFields) else None


@dataclasses.dataclass(frozen=True, slots=True)
class Recipient:
    """A row that can be written to.  `fields` are its cells by column, the address's own among them.

    From CSV and sheets every field is text; from JSON a field may be any JSON value.  `rows` are the fields of all rows
    that share the message, this one's first, where rows are grouped; empty where each row has a message of its own.
    """

    address: Address
    name: str
    fields: Mapping[str, object]
    place: Place
    rows: tuple[RowFields, ...] = ()


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be sent to.  `reason` is a sentence; `fields` is what could be read of it."""

    reason: str
    fields: Mapping[str, object]
    place: Place


PlainRow = tuple[int, str, str, str, dict[str, str]]
"""A row that can be written to, in brief: its line, `Address.wire`, the display name, `Address.key`, the fields."""


StoredRow = tuple[int, str, str, dict[str, object], str, int]
"""A recipient as an outbox has it: the number of its row, `Address.wire`, the display name, the fields, file, line."""


class PlainRows(NamedTuple):
    """Rows of one file that follow one another, none of which needs a second look.

    Every value is a text without a NUL and without a lone surrogate.  `due_at`, if given, says for each row
    when it may be tried first (wall-clock seconds, 0 for at once).
    """

    file: str
    rows: list[PlainRow]
    due_at: Sequence[float] = ()


# -- Variants of a message: which one a recipient gets, by its address alone, so that it stays so whenever it is asked.


FIELD = "variant"
"""The field of a row that says which one it gets."""

MOST = 26
_NAME = lazy_pattern(r"[A-Za-z0-9][A-Za-z0-9_-]{0,29}")

Variants = tuple[tuple[str, int], ...]
"""Their names, each with its share of the recipients; the shares are relative to one another."""


def parse_variants(shares: Mapping[str, int]) -> Variants:
    """Raises `ConfigError` for fewer than two, for a name or a share that cannot be."""
    for name, share in shares.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name[:40]!r} is not a name for a variant", hint="write a word such as a, b or short")
        if isinstance(share, bool) or not isinstance(share, int) or not 1 <= share <= 1_000_000:
            raise ConfigError(f"the share of {name!r} is not a whole number from 1", hint="write { a = 90, b = 10 }")
    if not 2 <= len(shares) <= MOST:
        raise ConfigError(f"expected 2 to {MOST} variants", hint='write variants = ["a", "b"]')
    return tuple(shares.items())


def variant_of(key: str, variants: Variants, *, salt: str) -> str:
    """The one that an `Address.key` gets.  `salt`, the campaign's name, divides people otherwise in each campaign."""
    digest = blake2b(f"{salt}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    place = int.from_bytes(digest, "big") % sum(share for _, share in variants)
    for name, share in variants:
        place -= share
        if place < 0:
            return name
    raise AssertionError("the shares add up to their sum")
