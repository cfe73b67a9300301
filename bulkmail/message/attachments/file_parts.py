"""A part that is a file: its content type, and its name written for every mail program."""

from __future__ import annotations

import mimetypes
from functools import cache
from pathlib import PurePosixPath
from urllib.parse import quote

from bulkmail.message.header.headers import encoded_words

_LONGEST_LINE = 76
# What may stand in an extended value as it is (RFC 5987 §3.2.1, a part of what RFC 2231 allows).
_PLAIN = "!#$&+^`|~"


def file_fields(filename: str, content_type: str, *, content_id: str | None = None) -> list[tuple[str, str]]:
    """Content-Type, Content-Transfer-Encoding (base64), Content-Disposition and, with a `content_id`, Content-ID.

    The values are folded; no line is longer than 76 characters but for a long ASCII name, which stays in one piece.
    """
    disposition = "inline" if content_id else "attachment"
    name, extended = _both(filename)
    fields = [
        ("Content-Type", f"{content_type};\r\n name={name}"),
        ("Content-Transfer-Encoding", "base64"),
        ("Content-Disposition", f"{disposition};\r\n " + ";\r\n ".join(extended)),
    ]
    return [*fields, ("Content-ID", f"<{content_id}>")] if content_id else fields


def _both(filename: str) -> tuple[str, list[str]]:
    """The value of `name=`, and the parameters of Content-Disposition."""
    if filename.isascii():
        quoted = '"' + filename.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return quoted, [f"filename={quoted}"]
    words = encoded_words(filename, room=_LONGEST_LINE - len(' name=""'))
    return '"' + "\r\n".join(words).lstrip() + '"', _extended(filename)


def _extended(filename: str) -> list[str]:
    """RFC 2231 §4, or in pieces (§4.1) that never end within a character."""
    whole = f"filename*=utf-8''{quote(filename, safe=_PLAIN)}"
    if len(whole) < _LONGEST_LINE:
        return [whole]
    pieces = [""]
    for character in filename:
        encoded = quote(character, safe=_PLAIN)
        head = f" filename*{len(pieces) - 1}*={_CHARSET if len(pieces) == 1 else ''};"
        if len(head) + len(pieces[-1]) + len(encoded) > _LONGEST_LINE:
            pieces.append("")
        pieces[-1] += encoded
    return [f"filename*{number}*={'' if number else _CHARSET}{piece}" for number, piece in enumerate(pieces)]


_CHARSET = "utf-8''"

# What shops attach and Python's table lacks.  The system's table is not asked: the same message should be the same
# everywhere, as its fingerprint says.
_MORE_TYPES = {
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".odp": "application/vnd.oasis.opendocument.presentation",
    ".epub": "application/epub+zip",
    ".ics": "text/calendar",
    ".vcf": "text/vcard",
    ".md": "text/markdown",
    ".webp": "image/webp",
    ".rtf": "application/rtf",
    ".7z": "application/x-7z-compressed",
}
_ENCODINGS = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}


@cache
def _types() -> mimetypes.MimeTypes:
    return mimetypes.MimeTypes()


def guess_type(filename: str) -> str:
    """The content type that goes with a file name; `application/octet-stream` when nothing is known of it."""
    suffix = PurePosixPath(filename).suffix.lower()
    if suffix in _MORE_TYPES:
        return _MORE_TYPES[suffix]
    guessed, encoding = _types().guess_type(f"file{suffix}")
    return _ENCODINGS.get(encoding or "", "") or guessed or "application/octet-stream"
