"""A campaign's files as a form shows them, and `campaign.toml` changed line by line, with its comments kept.

What names a command, a secret or a hook is shown and never changed here: a page must not become a shell.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from hashlib import sha256
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from bulkmail.model.errors import ConfigError
from bulkmail.model.lazy import dataclass
from bulkmail.settings.layers import FILE_NAME, LONGEST_FILE, parse_toml
from bulkmail.settings.schema import sensitivity_of

BODIES = {"markdown": "Markdown", "html": "HTML", "mjml": "MJML", "text": "Plain text"}
"""The formats of a message that can be written here, with what people call them."""

NEW_FILES = {"markdown": "message.md", "html": "message.html", "mjml": "message.mjml", "text": "message.txt"}
HEADS = {"from": "From", "reply_to": "Reply to", "subject": "Subject", "preheader": "Preview text"}
PACES = {"rate": "Rate", "connections": "Connections", "window": "Sending hours", "quota": "Quota"}
LONGEST_BODY = 2_000_000  # characters of a body that can be edited here

# Beside what the schema says is sensitive: which files of this computer are read or trusted, and by which address it
# speaks.
_LOCKED = frozenset({"attachments_root", "ca_file", "client_certificate", "client_key", "on_message", "source_address"})
_FREE_TABLES = frozenset({("data",), ("message", "headers")})  # their keys are the user's own words


def is_locked(path: Sequence[str | int]) -> bool:
    """Whether a key of the settings, or the table it is in, names a command, a secret's place or a hook."""
    names = tuple(step for step in path if isinstance(step, str))
    if any(names[: len(table)] == table for table in _FREE_TABLES):
        return False
    return any(name in _LOCKED or sensitivity_of(names[:end]) is not None for end, name in enumerate(names, 1))


def locked_values(data: Mapping[str, Any]) -> dict[tuple[str | int, ...], object]:
    """The values that are not to be changed here, by where they are."""
    return {path: value for path, value in _leaves(data) if is_locked(path)}


def _leaves(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], object]]:
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from _leaves(value, (*path, str(key)))
    elif isinstance(data, list) and data:
        for number, value in enumerate(data):
            yield from _leaves(value, (*path, number))
    else:
        yield path, data


def check_change(
    before: Mapping[str, Any], after: Mapping[str, Any], *, home: Path, inside: Callable[[Path], bool]
) -> None:
    """Raises `ConfigError` where a change of the settings reaches for commands, secrets, hooks or files outside."""
    old, new = locked_values(before), locked_values(after)
    changed = sorted({path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}, key=str)
    if changed:
        names = ", ".join(_spelled(path) for path in changed[:5])
        raise ConfigError(
            f"{names} cannot be changed in the console: it names a command, a secret or a hook",
            hint=f"change it in {FILE_NAME} with a text editor",
        )
    known = dict(_named_files(before))
    for place, name in _named_files(after):
        if known.get(place) != name and not inside(home / os.path.expanduser(name)):
            raise ConfigError(
                f"{_spelled(place)} names a file outside the folders of the console",
                hint="copy the file into the campaign's folder",
            )


def _spelled(path: tuple[str | int, ...]) -> str:
    return ".".join(str(step) for step in path)


def _named_files(data: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The values that name a file of the campaign: the list, suppression files, bodies, attachments, `data`."""
    for path, value in _leaves(data):
        names = tuple(step for step in path if isinstance(step, str))
        if not isinstance(value, str) or "\n" in value:
            continue
        match names:
            case ("recipients",) | ("recipients", "file" | "suppress") | ("data",) | ("suppressions", "file"):
                yield path, value
            case ("message", "attachments") | ("message", "attachments", "file"):
                yield path, value
            case ("message", "text" | "html" | "markdown" | "mjml" | "calendar"):
                yield path, value
            case ("message", "text" | "html" | "markdown" | "mjml" | "calendar", "file" | "fallback"):
                yield path, value
            case ("data", *_, "file"):
                yield path, value


@dataclass(frozen=True, slots=True)
class EditableBody:
    """One part of the message.  `file` is its name, empty where the text is in the settings themselves.

    `why_not` says why it cannot be edited here; empty where it can.
    """

    kind: str
    text: str
    file: str = ""
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """The settings and the bodies as they are on disk.  `digest` tells whether any of them has changed since."""

    settings: str
    digest: str
    data: Mapping[str, Any] = field(default_factory=dict)
    bodies: tuple[EditableBody, ...] = ()
    fault: str = ""

    def head(self, key: str) -> str:
        """A line of `[message]`; empty where it is not written."""
        return _text_of(_table(self.data, "message").get(key))

    def pace(self, key: str) -> str:
        """A value of `[sending]`."""
        return _text_of(_table(self.data, "sending").get(key))

    @property
    def list_file(self) -> str:
        """The list as it is named in the settings."""
        said = self.data.get("recipients")
        return _text_of(said.get("file")) if isinstance(said, dict) else _text_of(said)

    @property
    def relay(self) -> str | None:
        """The address of the only relay; None where there are several, which are not changed here."""
        said = self.data.get("relay")
        if isinstance(said, list):
            return None if len(said) != 1 else _text_of(said[0].get("url")) if isinstance(said[0], dict) else None
        return _text_of(said.get("url")) if isinstance(said, dict) else _text_of(said)

    @property
    def attachments(self) -> tuple[str, ...]:
        """The files that every recipient gets."""
        said = _table(self.data, "message").get("attachments")
        found = (
            [each.get("file") if isinstance(each, dict) else each for each in said] if isinstance(said, list) else []
        )
        return tuple(each for each in found if isinstance(each, str))


def _table(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _text_of(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def read_document(file: Path, inside: Callable[[Path], bool]) -> Document:
    """What is on disk now, with a fault of the settings.  Raises `ConfigError` where they cannot be read at all."""
    raw = _read(file)
    settings = raw.decode("utf-8-sig", "replace").replace("\r\n", "\n")
    digest = sha256(raw)
    try:
        data = parse_toml(settings, file)
    except ConfigError as error:
        return Document(settings, digest.hexdigest(), fault=f"{error}{f' ({error.hint})' if error.hint else ''}")
    bodies = []
    for kind in BODIES:
        body = _body(kind, data, file.parent, inside)
        if body is not None:
            bodies.append(body)
            digest.update(f"\0{body.file}\0{body.text}".encode("utf-8", "replace"))
    return Document(settings, digest.hexdigest(), data, tuple(bodies))


def _body(kind: str, data: Mapping[str, Any], home: Path, inside: Callable[[Path], bool]) -> EditableBody | None:
    said = _table(data, "message").get(kind)
    if isinstance(said, dict):
        if isinstance(said.get("inline"), str):
            return EditableBody(kind, said["inline"])
        said = said.get("file")
    if not isinstance(said, str):
        return None
    if "\n" in said:
        return EditableBody(kind, said)
    if "{{" in said:
        return EditableBody(kind, "", said, "each row chooses its own file, so it is edited in a text editor")
    path = home / said
    if not inside(path):
        return EditableBody(kind, "", said, "the file is outside the folders of the console")
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        return EditableBody(kind, "", said)
    except (OSError, ValueError):
        return EditableBody(kind, "", said, "the file cannot be read as UTF-8 text")
    if len(text) > LONGEST_BODY:
        return EditableBody(kind, "", said, "the file is too long to be edited here")
    return EditableBody(kind, text, said)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            raw = opened.read(LONGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    if len(raw) > LONGEST_FILE:
        raise ConfigError(f"{file}: is too long to be edited here")
    return raw


@dataclass(frozen=True, slots=True)
class TypedDocument:
    """A document as it was typed: the new settings, and the texts of files by their names in the campaign's folder."""

    settings: str
    files: Mapping[str, str]

    def texts(self, file: Path) -> dict[str, str]:
        """All of them by absolute path, as `load(drafts=…)` takes them."""
        return {str(file.absolute()): self.settings} | {
            str((file.parent / name).absolute()): text for name, text in self.files.items()
        }


def draft_of(document: Document, form: Mapping[str, str]) -> TypedDocument:
    """What the fields of a form make of the document; other keys stay as they are.  Raises `ConfigError`."""
    try:
        toml = tomlkit.parse(document.settings)
    except (TOMLKitError, ValueError) as error:
        raise ConfigError(f"{FILE_NAME}: {error}") from None
    for key in HEADS:
        if key in form and (said := " ".join(form[key].split())) != " ".join(document.head(key).split()):
            _put(_table_in(toml, "message"), key, said)
    for key in PACES:
        if key in form and (said := form[key].strip()) != document.pace(key):
            _put(_table_in(toml, "sending"), key, int(said) if key == "connections" and said.isdigit() else said)
    if "list" in form and form["list"] != document.list_file:
        _put_short(toml, "recipients", "file", form["list"])
    if "relay" in form and document.relay is not None and (said := form["relay"].strip()) != document.relay:
        _put_short(toml, "relay", "url", said)
    files = _put_bodies(toml, document, form)
    if "remove" in form:
        _remove_attachment(toml, form["remove"])
    if "attach" in form:
        _add_attachment(toml, form["attach"])
    return TypedDocument(tomlkit.dumps(toml), files)


def _put_bodies(toml: Any, document: Document, form: Mapping[str, str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for body in document.bodies:
        text = form.get(f"body-{body.kind}")
        if text is None or body.why_not:
            continue
        text = text.replace("\r\n", "\n")
        if body.file:
            files[body.file] = text
        elif text != body.text:
            table = _table_in(toml, "message")
            written = tomlkit.string(text if "\n" in text else text + "\n", multiline=True)
            if isinstance(table[body.kind], Mapping):
                table[body.kind]["inline"] = written
            else:
                table[body.kind] = written
    present = {body.kind for body in document.bodies}
    if (kind := form.get("add", "")) in BODIES and kind not in present:
        _put(_table_in(toml, "message"), kind, NEW_FILES[kind])
        files[NEW_FILES[kind]] = form.get(f"body-{kind}", "")
    return files


def _table_in(toml: Any, name: str) -> Any:
    if not isinstance(toml.get(name), Mapping):
        toml[name] = tomlkit.table()
    return toml[name]


def _put(table: Any, key: str, value: object) -> None:
    if value == "":
        if key in table:
            del table[key]
    else:
        table[key] = value


def _put_short(toml: Any, name: str, key: str, value: str) -> None:
    """Sets `name.key`, or `name` itself where a text stands for the table."""
    found = toml.get(name)
    if isinstance(found, list):
        found[0][key] = value
    elif isinstance(found, Mapping):
        _put(found, key, value)
    elif found is not None:
        _put(toml, name, value)
    elif value:
        # Behind a [table] a new key would belong to that.
        toml[name] = tomlkit.table()
        toml[name][key] = value


def _remove_attachment(toml: Any, name: str) -> None:
    found = _table_in(toml, "message").get("attachments")
    for number, each in enumerate(found if isinstance(found, list) else ()):
        if (each.get("file") if isinstance(each, Mapping) else each) == name:
            del found[number]
            return


def _add_attachment(toml: Any, name: str) -> None:
    table = _table_in(toml, "message")
    if not isinstance(table.get("attachments"), list):
        table["attachments"] = tomlkit.array()
    if name not in table["attachments"]:
        table["attachments"].append(name)


class ChangedOnDisk(ConfigError):
    """Another program has changed the files since they were shown."""


def save(file: Path, draft: TypedDocument, *, digest: str, inside: Callable[[Path], bool]) -> Document:
    """Writes what differs from the disk, each file as a whole; returns what is there then.

    Raises `ChangedOnDisk` unless the files are still those of `digest`, `ConfigError` for what must not be written.
    """
    before = read_document(file, inside)
    if before.digest != digest:
        raise ChangedOnDisk(f"{FILE_NAME} or a file of the message has changed on disk since this page was loaded")
    check_change(before.data, parse_toml(draft.settings, file), home=file.parent, inside=inside)
    known = {body.file: body.text for body in before.bodies if body.file}
    texts = {name: text for name, text in draft.files.items() if known.get(name, "") != text}
    for name in texts:
        if not inside(file.parent / name):
            raise ConfigError(f"{name} is outside the folders of the console")
        (file.parent / name).parent.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(file.parent / name, text)
    if draft.settings != before.settings:
        write_text(file, draft.settings)
    return read_document(file, inside)


def write_text(path: Path, text: str) -> None:
    """Replaces a file as a whole; keeps its byte order mark, its line ends and its mode.  Raises `ConfigError`."""
    try:
        before = path.read_bytes() if path.exists() else b""
        data = text.replace("\r\n", "\n")
        if b"\r\n" in before:
            data = data.replace("\n", "\r\n")
        encoded = (b"\xef\xbb\xbf" if before.startswith(b"\xef\xbb\xbf") else b"") + data.encode()
        real = Path(os.path.realpath(path))
        with tempfile.NamedTemporaryFile(dir=real.parent, delete=False, prefix=".bulkmail-") as new:
            new.write(encoded)
        os.chmod(new.name, real.stat().st_mode & 0o777 if real.exists() else 0o644)
        os.replace(new.name, real)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
