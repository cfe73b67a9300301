"""A whole campaign in one file: headers, an empty line, a body, all of it Jinja, as the mailmerge project made popular.

Headers and body are separated before anything is filled in: no cell can add a header.
"""

from __future__ import annotations

import binascii
import mimetypes
import quopri
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from pathlib import Path
from typing import Any

from bulkmail.message.compose.mime_plan import check_attachment
from bulkmail.message.header.addresses import pieces
from bulkmail.model.campaign import Attachment, is_template
from bulkmail.model.errors import AddressError, ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.model.recipient import Address
from bulkmail.settings.layers import KeyPath
from bulkmail.settings.problems import Problems, show
from bulkmail.settings.schema import CampaignFile, read_campaign

# What a header of the message is called in `[message]`; all others are headers of the message.
_KEYS = {"from": "from", "subject": "subject", "reply-to": "reply_to", "cc": "cc", "bcc": "bcc"} | {
    "return-path": "reverse_path"
}
_BODIES = {"text/plain": "text", "text/html": "html", "text/markdown": "markdown", "text/calendar": "calendar"} | {
    "text/mjml": "mjml"
}
_ADDRESSES = frozenset({"from", "sender", "reply-to", "to", "cc", "bcc", "return-path"})
_IGNORED = frozenset({"mime-version", "content-transfer-encoding", "content-type"})

_HEADER = lazy_pattern(r"([!-9;-z|~]+):(.*)")
_COMMENT = lazy_pattern(r"\{#.*#\}[ \t]*")
_NAMED = lazy_pattern(r"(?P<name>[^<>]*?)\s*<\s*(?P<address>[^<>]*?)\s*>")


@dataclass(slots=True)
class _Header:
    name: str
    value: str
    line: int


@dataclass(slots=True)
class _MessageFile:
    path: Path
    problems: Problems
    message: dict[str, Any] = field(default_factory=dict)
    recipients: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    enclosed: list[Attachment] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def fault(self, line: int, text: str, fix: str = "") -> None:
        self.problems.add(f"{self.path}:{line}: {text}", fix)

    def put(self, key: str, value: object, line: int, *, what: str) -> None:
        """A setting of `[message]`, once."""
        if key in self.message:
            self.fault(line, f"{what} is there twice", "keep one of them")
            return
        self.message[key] = value
        self.lines["message", key] = line


def read_message_file(
    text: str, path: Path, problems: Problems, *, environ: Mapping[str, str]
) -> tuple[CampaignFile, dict[KeyPath, int], tuple[Attachment, ...], tuple[str, ...]]:
    """The campaign that the message is, the line of each of its settings, the files among its parts, and notices.

    What is wrong goes into `problems`.
    """
    message = _MessageFile(path, problems)
    lines = text.split("\n")
    headers, end = _headers(message, lines)
    for header in headers:
        _take(message, header)
    content_type = Message()
    given = next((header for header in headers if header.name.lower() == "content-type"), None)
    content_type["Content-Type"] = given.value if given else "text/plain"
    encoding = next((h.value for h in headers if h.name.lower() == "content-transfer-encoding"), "")
    _take_body(message, "\n".join(lines[end:]), end + 1, content_type=content_type, encoding=encoding)
    file, mistakes = read_campaign({"message": message.message, "recipients": message.recipients}, environ)
    for mistake in mistakes:
        message.fault(message.lines.get(mistake.path[:2], 1), mistake.text, mistake.fix)
    return file, message.lines, tuple(message.enclosed), tuple(message.notices)


def _headers(message: _MessageFile, lines: list[str]) -> tuple[list[_Header], int]:
    """The headers, and how many lines they and the empty one after them are."""
    headers: list[_Header] = []
    number = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            if headers:
                break
            continue
        if line[0] in " \t" and headers:
            headers[-1].value += "\n" + line.strip()
        elif found := _HEADER.fullmatch(line):
            headers.append(_Header(found[1], found[2].strip(), number))
        elif not _COMMENT.fullmatch(line):
            if not headers:
                what = f"{show(line)} is not a header; a message begins with headers, and an empty line ends them"
                message.fault(number, what, "begin with FROM: and SUBJECT:, or name a folder with campaign.toml")
                return [], len(lines)
            fix = 'write "NAME: value", or an empty line before the text'
            message.fault(number, f"{show(line)} is not a header", fix)
    return headers, number


def _take(message: _MessageFile, header: _Header) -> None:
    """Puts a header where it belongs."""
    name = header.name.lower()
    value = _decoded(header.value)
    if name in _ADDRESSES and (meant := _without_stray_bracket(value)):
        notice = f"{message.path}:{header.line}: {header.name}: {show(value)} has a single < or >; read as {meant}"
        message.notices.append(notice)
        value = meant
    if name in _KEYS:
        message.put(_KEYS[name], value, header.line, what=header.name)
    elif name == "to":
        _take_to(message, header, value)
    elif name == "group-by":
        if "group_by" in message.recipients:
            message.fault(header.line, f"{header.name} is there twice", "name several columns with commas between them")
            return
        message.recipients["group_by"] = [column.strip() for column in value.split(",")]
        message.lines["recipients", "group_by"] = header.line
    elif name == "attachment":
        attachments = message.message.setdefault("attachments", [])
        message.lines["message", "attachments", len(attachments)] = header.line
        attachments.append({"file": value})
    elif name not in _IGNORED:
        known = message.message.setdefault("headers", {})
        if name in {other.lower() for other in known}:
            message.fault(header.line, f"{header.name} is there twice", "keep one of them")
            return
        known[header.name] = value
        message.lines["message", "headers", header.name] = header.line


def _without_stray_bracket(value: str) -> str:
    """The address in `value` if that is one bare address with one angle bracket before or behind it, else nothing."""
    if value.count("<") + value.count(">") != 1:
        return ""
    bare = value.removeprefix("<").removesuffix(">").strip()
    try:
        return bare if bare != value and Address.parse(bare) else ""
    except AddressError:
        return ""


def _take_to(message: _MessageFile, header: _Header, value: str) -> None:
    """TO makes the address of each row, perhaps several, perhaps with a name before it, which stands apart."""
    if "address" in message.recipients:
        message.fault(header.line, f"{header.name} is there twice", "keep one of them; others go into CC")
        return
    several = [piece for piece in pieces(value) if piece.strip()]
    if not several:
        message.fault(header.line, f"{header.name} is empty", "write TO: {{ email }}, email being a column of the list")
        return
    named = _NAMED.fullmatch(value) if len(several) == 1 else None
    message.recipients["address"] = named["address"] if named else value
    message.lines["recipients", "address"] = header.line
    if named and (name := named["name"].strip(' "')):
        message.put("to_name", name, header.line, what=header.name)


def _decoded(value: str) -> str:
    """`=?utf-8?q?…?=` as the text that it stands for; what is to be filled in is never written so."""
    if "=?" not in value:
        return value
    try:
        return str(make_header(decode_header(value)))
    except (MessageError, LookupError, UnicodeError, ValueError):
        return value


def _take_body(
    message: _MessageFile, text: str, line: int, *, content_type: Message, encoding: str, is_part: bool = False
) -> None:
    kind = content_type.get_content_type()
    if kind.startswith("multipart/"):
        _take_parts(message, text, line, boundary=content_type.get_boundary() or "")
        return
    part = _BODIES.get(kind)
    if is_part and (part is None or content_type.get_content_disposition() == "attachment"):
        _enclose(message, text, line, content_type=content_type, encoding=encoding)
        return
    if part is None:
        fix = "write text/plain, text/html or text/markdown; other files go into ATTACHMENT"
        message.fault(line, f"a part of the type {show(kind)} cannot be written here", fix)
        return
    decode = _BYTES.get(encoding.strip().lower())
    try:
        text = decode(text).decode() if decode else text
    except (ValueError, binascii.Error):
        message.fault(line, f"the part is not {show(encoding)}, as its header says", "write it as plain text")
        return
    # The lines before it count: errors name those of the file.
    message.put(part, {"inline": f"{{#{chr(10) * (line - 1)}#}}{text}"}, line, what=f"a part of the type {kind}")


def _take_parts(message: _MessageFile, text: str, line: int, *, boundary: str) -> None:
    """The parts of a hand-written multipart (RFC 2046 §5.1.1), those in parts of parts too."""
    if not boundary:
        fix = 'write Content-Type: multipart/alternative; boundary="x"'
        message.fault(line, "the multipart does not say its boundary", fix)
        return
    pieces = re.split(rf"^--{re.escape(boundary)}(--)?[ \t]*$\n?", text, flags=re.MULTILINE)
    if len(pieces) == 1:
        message.fault(line, f"no line begins with --{boundary}, which ends in front of each part", "write one there")
        return
    start = line + pieces[0].count("\n") + 1
    for closing, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        if closing:
            break
        _take_part(message, piece.removesuffix("\n"), start)
        start += piece.count("\n") + 1


def _take_part(message: _MessageFile, piece: str, line: int) -> None:
    head, empty_line, text = piece.partition("\n\n") if not piece.startswith("\n") else ("", "\n", piece[1:])
    for number, said in enumerate(head.split("\n") if head else (), line):
        if said[:1] not in (" ", "\t") and not _HEADER.fullmatch(said):
            fix = 'write "NAME: value", or an empty line before the text'
            message.fault(number, f"{show(said)} is not a header of a part", fix)
            return
    if head and not empty_line:
        message.fault(
            line, "a part has headers and no text", "write an empty line behind its headers, and then the text"
        )
        return
    header = Message()
    for found in re.finditer(r"^([!-9;-~]+):[ \t]*((?:.|\n[ \t])*)", head, re.MULTILINE):
        header[found[1]] = found[2]
    start = line + (head.count("\n") + 2 if head else len(empty_line))
    encoding = str(header.get("Content-Transfer-Encoding", ""))
    _take_body(message, text, start, content_type=header, encoding=encoding, is_part=True)


def _enclose(message: _MessageFile, text: str, line: int, *, content_type: Message, encoding: str) -> None:
    """A part that is a file, the same for all."""
    kind = content_type.get_content_type()
    if is_template(text):
        fix = "write what depends on the row into the text; files of rows go into ATTACHMENT"
        message.fault(line, f"a part of the type {show(kind)} is a file, and nothing is filled in there", fix)
        return
    number = len(message.enclosed) + 1
    filename = content_type.get_filename() or f"file{number}{mimetypes.guess_extension(kind) or ''}"
    decode = _BYTES.get(encoding.strip().lower(), str.encode)
    try:
        attachment = Attachment(filename, kind, decode(text))
        check_attachment(filename, kind)
    except (ValueError, binascii.Error):
        message.fault(line, f"the part is not {show(encoding)}, as its header says", "encode it again")
    except ConfigError as error:
        message.fault(line, str(error), error.hint)
    else:
        message.enclosed.append(attachment)


def _quoted_printable(text: str) -> bytes:
    return quopri.decodestring(text.encode())


def _base64(text: str) -> bytes:
    return binascii.a2b_base64("".join(text.split()), strict_mode=True)


_BYTES: dict[str, Callable[[str], bytes]] = {"quoted-printable": _quoted_printable, "base64": _base64}
