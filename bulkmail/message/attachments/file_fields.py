"""The header fields of a part that is a file, its name written for every mail program.

RFC 2231 (`filename*=`) is the standard for names that are not ASCII; Outlook and others know only an encoded word in
`name=` of Content-Type, which RFC 2047 §5 does not allow and everyone reads.
"""

from __future__ import annotations

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
