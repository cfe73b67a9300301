"""Which content type goes with which file name."""

from __future__ import annotations

import mimetypes
from functools import cache
from pathlib import PurePosixPath

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
