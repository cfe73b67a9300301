"""Which campaigns and runs there are below the folders that the console was given."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from threading import Lock

from bulkmail.model.lazy import dataclass
from bulkmail.settings.layers import FILE_NAME
from bulkmail.settings.runs import FOLDER, SUFFIX
from bulkmail.text import printable

DEPTH = 2  # levels below a folder that was given
MOST_FOLDERS = 5_000  # that are looked into
_FRESH = 1.0  # seconds that a listing is good for
_LONGEST_NAME = 80  # characters


@dataclass(frozen=True, slots=True)
class CampaignFolder:
    """A folder with a `campaign.toml`.  `id` is its name in addresses; `shown` is the folder as a person would type it.

    `name` is what the folder is called.
    """

    id: str
    folder: Path
    shown: str
    name: str

    @property
    def file(self) -> Path:
        """Its settings."""
        return self.folder / FILE_NAME


@dataclass(frozen=True, slots=True)
class RunFile:
    """One outbox.  `campaign` is the id of the campaign in whose folder it is, empty where there is none."""

    id: str
    path: Path
    shown: str
    campaign: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What there is at one moment, by id."""

    campaigns: dict[str, CampaignFolder]
    runs: dict[str, RunFile]

    def runs_of(self, campaign: str) -> list[RunFile]:
        """The runs in the folder of a campaign."""
        return [run for run in self.runs.values() if run.campaign == campaign]


class Folders:
    """Looks below `roots`, two levels deep.  Nothing outside them has an id, so that no address leads there."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(root.resolve() for root in roots)
        self._base = Path.cwd()
        self._lock = Lock()
        self._listing: Listing | None = None
        self._listed_at = 0.0

    def forget(self) -> None:
        """Something was made here: look again."""
        self._listing = None

    def listing(self) -> Listing:
        """Campaigns and runs, at most a second old."""
        with self._lock:
            now = time.monotonic()
            if self._listing is None or now - self._listed_at > _FRESH:
                self._listing, self._listed_at = self._list(), now
            return self._listing

    def is_inside(self, path: Path) -> bool:
        """Whether following every link ends below one of the folders."""
        try:
            real = Path(os.path.realpath(path))
        except (OSError, ValueError):
            return False
        return any(real.is_relative_to(root) for root in self.roots)

    def shown(self, path: Path) -> str:
        """`path` as a person would type it in the folder where the console was started."""
        return str(path.relative_to(self._base)) if path.is_relative_to(self._base) else str(path)

    def _list(self) -> Listing:
        campaigns: dict[str, CampaignFolder] = {}
        runs: dict[str, RunFile] = {}
        for folder in self._folders():
            found = ""
            if (folder / FILE_NAME).is_file() and self.is_inside(folder / FILE_NAME):
                found = _id(folder, folder.name)
                campaigns[found] = CampaignFolder(found, folder, self.shown(folder), _name(folder.name))
            for path in _outboxes(folder / FOLDER):
                if self.is_inside(path):
                    identity = _id(path, path.name.removesuffix(SUFFIX))
                    runs[identity] = RunFile(identity, path, self.shown(path), found)
        return Listing(campaigns, runs)

    def _folders(self) -> Iterator[Path]:
        seen: set[Path] = set()
        for root in self.roots:
            for number, folder in enumerate(_below(root, DEPTH)):
                if number >= MOST_FOLDERS:
                    break
                if folder not in seen:
                    seen.add(folder)
                    yield folder


def _below(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if not depth:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # not ours to look into, or gone
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and entry.name != FOLDER:
            yield from _below(Path(entry.path), depth - 1)


def _outboxes(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if _is_outbox_name(entry))
    except OSError:
        return []


def _is_outbox_name(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(SUFFIX) and ".next." not in entry.name and entry.is_file(follow_symlinks=False)


def _id(path: Path, name: str) -> str:
    """The same for the same place at every start; says what it is about."""
    digest = blake2b(os.fsencode(path), digest_size=4).hexdigest()
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "campaign"
    return f"{stem}-{digest}"


def _name(name: str) -> str:
    return printable(name, _LONGEST_NAME)


def home_shown(path: Path) -> str:
    """`path` with ~ for the user's own folder."""
    home = Path.home()
    return printable(f"~/{path.relative_to(home)}" if path != home and path.is_relative_to(home) else str(path), 300)
