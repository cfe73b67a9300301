"""The files that only one row's message has: found below a folder that no cell can lead out of, and read once."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from html import unescape
from itertools import islice
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from markupsafe import Markup

from bulkmail.message.attachments.drawing import Drawn, PictureAddress, is_drawing, show
from bulkmail.message.attachments.file_parts import guess_type
from bulkmail.message.compose.mime_plan import boundary_of, check_attachment, file_head
from bulkmail.message.compose.rendered import Field
from bulkmail.message.compose.transfer_encoding import base64_lines
from bulkmail.message.header.headers import text_field
from bulkmail.message.html.local_files import CID, is_attached
from bulkmail.message.template.field_names import fields_in
from bulkmail.message.template.numbers import MissingFile
from bulkmail.message.template.rendering import Workshop
from bulkmail.message.template.strictness import printed
from bulkmail.message.template.template_errors import EnclosureError
from bulkmail.model.campaign import Campaign, RowAttachment, RowPictures, composed, other_case, same_name
from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass, lazy_pattern
from bulkmail.text import closest, printable

LARGEST_FILE = 25_000_000  # bytes; mail servers take less
KEPT = 16_000_000  # bytes of encoded files that are remembered

_LONGEST_SHOWN = 80
_MOST_NEIGHBOURS = 10_000  # names in a folder that are looked at
_SEPARATOR = lazy_pattern(r"[;\r\n]")  # between several files in one cell; no name of a file holds a line end
_DRIVE = lazy_pattern(r"[A-Za-z]:")
# Do not wait for a pipe without a writer; do not follow a link that was made since the last look.
_FLAGS = os.O_RDONLY
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)
_HAS_FOLDER_FLAGS = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY")


class Unusable(Exception):
    """A file that a row names cannot be sent; `str()` is the predicate of a sentence that begins with its name."""


class Folder:
    """A folder, and the files below it: links may lead from one to another, not out of it."""

    def __init__(self, root: str) -> None:
        """Raises `ConfigError` when there is no such folder."""
        self.root = os.path.realpath(root)
        if not os.path.isdir(self.root):
            raise ConfigError(
                f"the folder of the attachments, {root}, is not there", hint="put it back, or set attachments_root"
            )

    def open(self, path: str) -> int:
        """A descriptor of the ordinary file at `path`, relative to the folder.  Raises `Unusable`."""
        parts = _checked_parts(path)
        real = os.path.realpath(os.path.join(self.root, *parts))
        if not path.isascii() and not os.path.lexists(real):
            real = os.path.realpath(self._with_same_names(parts))
        if os.path.commonpath([real, self.root]) != self.root or real == self.root:
            raise Unusable("leads out of the folder of the attachments")
        try:
            descriptor = self._open(os.path.relpath(real, self.root).split(os.sep))
        except FileNotFoundError as error:
            raise Unusable(_reason(error) + self._did_you_mean(parts)) from None
        except OSError as error:
            raise Unusable(_reason(error)) from None
        status = os.fstat(descriptor)
        if fault := _fault(status):
            os.close(descriptor)
            raise Unusable(fault)
        return descriptor

    def has(self, path: str) -> bool:
        """Whether there is an ordinary file at `path` that `open` would open."""
        try:
            os.close(self.open(path))
        except Unusable:
            return False
        return True

    def _with_same_names(self, parts: list[str]) -> str:
        """The path with the names as the disk writes their accents."""
        path = self.root
        for part in parts:
            exact = os.path.join(path, part)
            path = exact if os.path.lexists(exact) else os.path.join(path, same_name(part, _names(path)) or part)
        return path

    def _did_you_mean(self, parts: list[str]) -> str:
        """A path like the one that is not there: in other case, or nearly spelt so."""
        path, found = self.root, list[str]()
        for part in parts:
            names = _names(path)
            near = part if part in names else other_case(part, names) or closest(part, names)
            if not near:
                return ""
            found.append(near)
            path = os.path.join(path, near)
            if os.path.islink(path):  # a hint says nothing of what is elsewhere
                return ""
        return f"; did you mean {printable('/'.join(found), _LONGEST_SHOWN)!r}?" if os.path.isfile(path) else ""

    def _open(self, parts: list[str]) -> int:
        """Folder by folder, none of them a link: none can be replaced by a link meanwhile."""
        if not _HAS_FOLDER_FLAGS:
            return os.open(os.path.join(self.root, *parts), _FLAGS)
        above = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                below = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=above)
                os.close(above)
                above = below
            return os.open(parts[-1], _FLAGS, dir_fd=above)
        finally:
            os.close(above)


def _names(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in islice(entries, _MOST_NEIGHBOURS)]
    except OSError:
        return []


def _checked_parts(path: str) -> list[str]:
    if "\0" in path or not path.isprintable():
        raise Unusable("holds a control character")
    if path.startswith(("/", "\\", "~")) or _DRIVE.match(path):
        raise Unusable("is an absolute path; a row names files below the folder of the attachments")
    if "\\" in path:
        raise Unusable("has a backslash; write / between folders")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Unusable('has ".." in it; a row names files below the folder of the attachments')
    if not parts or path.endswith("/"):
        raise Unusable("names no file")
    return parts


def _fault(status: os.stat_result) -> str:
    if stat.S_ISDIR(status.st_mode):
        return "is a folder"
    if not stat.S_ISREG(status.st_mode):
        return "is not an ordinary file"
    if status.st_size > LARGEST_FILE:
        return f"has {status.st_size / 1e6:,.0f} MB; {LARGEST_FILE // 1_000_000} are allowed"
    return ""


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "is not there"
    if isinstance(error, PermissionError):
        return "may not be read"
    return f"cannot be opened: {error.strerror}"


class Shelf:
    """Encoded files, the latest used of them kept, so that one that many rows name is read and encoded once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int, int, int], bytes] = OrderedDict()
        self._size = 0

    def content(self, descriptor: int) -> bytes:
        """The file in base64, ending in CRLF.  Closes `descriptor`.  Raises `Unusable`."""
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            try:
                data = file.read(status.st_size + 1)
            except OSError as error:
                raise Unusable(_reason(error)) from None
        if len(data) > LARGEST_FILE or len(data) != status.st_size:
            raise Unusable("is being written to just now")
        encoded = base64_lines(data) + b"\r\n"
        self._kept[key] = encoded
        self._size += len(encoded)
        while self._size > KEPT and len(self._kept) > 1:
            self._size -= len(self._kept.popitem(last=False)[1])
        return encoded


@dataclass(frozen=True, slots=True)
class Enclosure:
    """One file that one row names, not opened yet."""

    path: str
    filename: str
    content_type: str
    source: RowFile


class RowFile:
    """One setting that names a file for each row."""

    def __init__(self, attachment: RowAttachment, workshop: Workshop) -> None:
        """Raises `TemplateError`, and `ConfigError` for a folder that is not there."""
        self._attachment = attachment
        self.folder = Folder(attachment.root)
        self._path = Field("attachment", workshop.header(attachment.path), encode=text_field)
        self._names = fields_in(attachment.path)
        self._filename = attachment.filename and Field(
            "attachment name", workshop.header(attachment.filename), encode=text_field
        )

    def _relative(self, path: str) -> str:
        """An absolute path that begins with the folder, as one that starts from it; any other as it is."""
        roots = () if self._attachment.prefix else (self.folder.root, self._attachment.root)
        return next((path[len(root) + 1 :] for root in roots if path.startswith(f"{root}/")), path)

    def enclosures(self, variables: dict[str, object], fields: Mapping[str, object]) -> Iterator[Enclosure]:
        """What the row names: a cell may hold several files, on lines of their own or as in `a.pdf; b.pdf`.

        A file that has such a name goes before.

        Looked at as far as that goes without a disk.  Raises `TemplateError`.
        """
        several = {
            name: cell
            for name in self._names
            if isinstance(cell := fields.get(name), str) and _SEPARATOR.search(cell.strip())
        }
        parts = [part for cell in several.values() for each in _SEPARATOR.split(cell) if (part := each.strip())]
        has_lines = any("\n" in cell.strip() or "\r" in cell.strip() for cell in several.values())
        if len(several) != 1 or not parts or (not has_lines and self._is_one(variables, fields)):
            found = self._enclosure(variables, fields)
            if found is not None:
                yield found
            return
        name = next(iter(several))
        for part in parts:
            own = {**fields, name: part}
            found = self._enclosure({**variables, "row": own, **({name: part} if name in variables else {})}, own)
            if found is not None:
                yield found

    def _is_one(self, variables: dict[str, object], fields: Mapping[str, object]) -> bool:
        path = self._relative(self._path.value(variables, fields)[self._attachment.prefix :])
        return not _SEPARATOR.search(path) or self.folder.has(path)

    def _enclosure(self, variables: dict[str, object], fields: Mapping[str, object]) -> Enclosure | None:
        path = self._relative(self._path.value(variables, fields)[self._attachment.prefix :])
        if not path:
            if self._attachment.is_optional:
                return None
            hint = 'write { file = "…", optional = true } for a file that not every row has'
            raise EnclosureError(str(self._path.refuse("names no file")), hint=hint)
        try:
            _checked_parts(path)
        except Unusable as error:
            raise self._refuse(path, error) from None
        filename = self._filename.value(variables, fields) if self._filename else composed(PurePosixPath(path).name)
        content_type = self._attachment.content_type or guess_type(filename)
        try:
            check_attachment(filename, content_type)
        except ConfigError as error:
            raise self._path.refuse(f"is {printable(path, _LONGEST_SHOWN)!r}: {error}", hint=error.hint) from None
        return Enclosure(path, filename, content_type, self)

    def open(self, enclosure: Enclosure) -> int:
        """A descriptor of the file.  Raises `TemplateError`."""
        try:
            return self.folder.open(enclosure.path)
        except Unusable as error:
            raise self._refuse(enclosure.path, error) from None

    def encoded(self, enclosure: Enclosure, shelf: Shelf) -> bytes:
        """The file in base64, ending in CRLF.  Raises `TemplateError`."""
        descriptor = self.open(enclosure)
        try:
            return shelf.content(descriptor)
        except Unusable as error:
            raise self._refuse(enclosure.path, error) from None

    def _refuse(self, path: str, error: Unusable) -> EnclosureError:
        hint = f"files of rows are looked for in {self.folder.root}"
        refused = self._path.refuse(f"{printable(path, _LONGEST_SHOWN)!r} {error}", hint=hint)
        return EnclosureError(str(refused), hint=hint)


class Pictures:
    """The pictures that pages name for each row: the filter `picture`."""

    def __init__(self, pictures: RowPictures, shelf: Shelf) -> None:
        """Raises `ConfigError` for a folder that is not there."""
        self._folder = Folder(pictures.root)
        self._beside = pictures.beside
        self._are_attached = pictures.are_attached
        self._shelf = shelf
        self._attached = _Attached()

    @contextmanager
    def attached(self, enclosures: Sequence[Enclosure]) -> Iterator[None]:
        """Within, `cid:NAME` finds the file that the row attaches under that name."""
        before, self._attached.files = self._attached.files, {each.filename: each for each in enclosures}
        try:
            yield
        finally:
            self._attached.files = before

    def picture(self, value: Any) -> PictureAddress:
        """The filter: the address of the picture that the message brings along, `cid:…`, from the path of its file.

        Raises `MissingFile` for one that cannot be sent.
        """
        text = str(printed(value))
        path = (unescape(text) if isinstance(value, Markup) else text).strip()
        is_named = is_attached(path)
        name = path[len(CID) :] if is_named else path
        if not name:
            raise MissingFile(value, "names no picture", fix="write {% if … %} around the picture")
        try:
            descriptor, folder, found = self._open(name, is_named=is_named)
            try:
                content_type = guess_type(found)
                check_attachment(PurePosixPath(found).name, content_type)
                if not content_type.startswith("image/"):
                    raise Unusable("is no picture by its name")
                if not os.fstat(descriptor).st_size:
                    raise Unusable("is empty")
            except BaseException:
                os.close(descriptor)
                raise
            key = f"{is_named} {found}".encode("utf-8", "replace")
            content_id = f"{blake2b(key, digest_size=12).hexdigest()}@row"
            if is_drawing():
                encoded = self._shelf.content(descriptor).removesuffix(b"\r\n")
                attached = full_path(folder, found) if is_named or self._are_attached else ""
                show(Drawn(content_id, encoded, composed(PurePosixPath(found).name), content_type, attached))
            else:
                os.close(descriptor)
        except Unusable as error:
            raise MissingFile(name, str(error), fix=f"pictures of rows are looked for in {self._folder.root}") from None
        except ConfigError as error:
            raise MissingFile(name, str(error), fix=error.hint) from None
        return PictureAddress(f"{CID}{content_id}")

    def _open(self, name: str, *, is_named: bool) -> tuple[int, Folder, str]:
        """A descriptor of the file, the folder that it is below, and its path there.  Raises `Unusable`."""
        if is_named and (enclosure := self._attached.files.get(name)) is not None:
            folder = enclosure.source.folder
            return folder.open(enclosure.path), folder, enclosure.path
        if is_named:
            raise Unusable("is not the name of a file that the row attaches, as cid: asks for")
        if self._beside and self._folder.has(f"{self._beside}/{name}"):
            name = f"{self._beside}/{name}"
        return self._folder.open(name), self._folder, name


def full_path(folder: Folder, path: str) -> str:
    """Where the file is, as a text to compare."""
    return os.path.normpath(os.path.join(folder.root, path))


class _Attached(threading.local):
    files: Mapping[str, Enclosure] = MappingProxyType({})


class RowFiles:
    """All files that rows of a campaign name."""

    def __init__(self, campaign: Campaign, workshop: Workshop, shelf: Shelf) -> None:
        """Raises `TemplateError` and `ConfigError`."""
        self._files = [RowFile(attachment, workshop) for attachment in campaign.row_attachments]
        self._shelf = shelf

    @property
    def are_by_row(self) -> bool:
        """Whether there are any."""
        return bool(self._files)

    def named(self, variables: dict[str, object], fields: Mapping[str, object]) -> list[Enclosure]:
        """The files that a row names.  Raises `TemplateError`."""
        return [enclosure for file in self._files for enclosure in file.enclosures(variables, fields)]

    def check(self, enclosures: list[Enclosure]) -> tuple[int, tuple[str, ...]]:
        """The bytes of the files, and the paths of those without any.

        Raises the `TemplateError` that `buffers` would, without reading.
        """
        size, empty = 0, list[str]()
        for enclosure in enclosures:
            descriptor = enclosure.source.open(enclosure)
            try:
                raw = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
            size += raw
            if not raw:
                empty.append(enclosure.path)
        return size, tuple(empty)

    def buffers(self, enclosures: list[Enclosure], *, identity: str) -> Iterator[bytes]:
        """The parts of a message, each after its delimiter line.  What several rows name is one shared buffer.

        Raises `TemplateError`.
        """
        delimiter = f"--{boundary_of('mixed', identity)}\r\n".encode("ascii")
        for enclosure in enclosures:
            yield delimiter + _head(enclosure.filename, enclosure.content_type)
            yield enclosure.source.encoded(enclosure, self._shelf)


_head = lru_cache(maxsize=1024)(file_head)
