"""Where a run keeps its files, and which run a name means."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bulkmail.model.errors import ConfigError, OutboxError
from bulkmail.settings.dating import pattern_of
from bulkmail.settings.layers import FILE_NAME, parse_toml
from bulkmail.settings.layers import SUFFIX as TOML
from bulkmail.settings.settings import Settings

FOLDER = "runs"
SUFFIX = ".outbox"
REHEARSAL_SUFFIX = ".rehearsal.outbox"
LONGEST_STEM = 80  # bytes; file systems take 255, and reports add to it


def run_path(settings: Settings, rehearsal: bool, *, now: float | None = None) -> Path:
    """The outbox of a run: the campaign's, the list's and message's, or, for `--to`, one that is not there yet.

    `now` is wall-clock seconds, by default those of the clock; it dates the runs of `--to`.
    """
    folder = settings.home / FOLDER
    suffix = REHEARSAL_SUFFIX if rehearsal else SUFFIX
    stem = file_stem(settings.name)
    if settings.to:
        return _fresh(folder, f"{stem}-to" if settings.is_folder else "to", suffix, now=now)
    if settings.is_folder:
        return folder / f"{stem}{suffix}"
    return folder / f"{stem}-{settings.campaign.fingerprint[:8]}{suffix}"


def _fresh(folder: Path, stem: str, suffix: str, *, now: float | None) -> Path:
    date = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    path, number = folder / f"{stem}-{date}{suffix}", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{date}-{number}{suffix}"
    return path


def file_stem(name: str) -> str:
    """`name` as the beginning of a file name on any system: without dots, never empty, a path or too long."""
    stem = re.sub(r"[^\w-]+", "-", name).strip("-")
    stem = stem.encode()[:LONGEST_STEM].decode(errors="ignore")
    return stem or "campaign"


def find_run(argument: str, *, rehearsals: bool = True, prefers: Callable[[Path], bool] | None = None) -> Path:
    """The outbox that `argument` means: itself, or the latest run of a campaign (a folder, a `.toml` file, a message).

    `rehearsals=False` passes over rehearsals, unless one is named itself.  A run that `prefers` says yes to goes before
    later ones.  Raises `ConfigError` that names what was looked for.
    """
    path = Path(argument)
    if names_outbox(argument):
        return path
    if not path.exists():
        raise ConfigError(
            f"{argument}: there is no such run: no outbox and no campaign by that name", hint=_runs_nearby()
        )
    home, name = _whose(path)
    folder = home / FOLDER
    pattern = _pattern(name)
    runs = [run for run in folder.glob(f"*{SUFFIX}") if pattern.fullmatch(run.name)]
    if not rehearsals:
        runs = [run for run in runs if not _is_rehearsal(run)]
    if not runs:
        stem = file_stem(name) if name else ""
        wanted = f"{stem}{SUFFIX}" if stem else f"*{SUFFIX}"
        if stem and rehearsals:
            wanted += f" or {stem}{REHEARSAL_SUFFIX}"
        raise ConfigError(
            f"{argument}: has no run yet: there is no {wanted} in {folder}", hint=f"bulkmail send {argument}"
        )
    return max(filter(prefers, runs) if prefers and any(map(prefers, runs)) else runs, key=_last_written)


def names_outbox(argument: str) -> bool:
    """Whether `argument` names one run's outbox itself, rather than a campaign with all its passes."""
    path = Path(argument)
    return path.is_file() and not is_campaign_file(path)


def is_campaign_file(path: Path) -> bool:
    """Whether a file is a campaign or a message, rather than an outbox."""
    if path.suffix.lower() == TOML:
        return True
    if path.suffix.lower() == SUFFIX:
        return False
    try:
        with path.open("rb") as file:
            head = file.read(len(_DATABASE))
            return bool(head) and not head.startswith(_DATABASE)
    except OSError:
        return False


_DATABASE = b"SQLite format 3\0"


def _whose(path: Path) -> tuple[Path, str]:
    """The folder that `runs/` is in, and the campaign's name; empty when any run will do."""
    if path.is_dir() and not (path / FILE_NAME).is_file():
        return (path.parent, "") if path.name == FOLDER else (path, "")
    file = path / FILE_NAME if path.is_dir() else path
    return file.parent, _campaign_name(file)


def _campaign_name(file: Path) -> str:
    """What `load` would call it, also when the file can no longer be loaded."""
    if file.suffix.lower() != TOML:
        return file.stem
    try:
        name = parse_toml(file.read_text("utf-8-sig"), file).get("name")
    except (OSError, ValueError, ConfigError):
        name = None
    if isinstance(name, str) and name.strip():
        return " ".join(name.split())
    return file.absolute().parent.name if file.name == FILE_NAME else file.stem


def campaign_name(argument: str) -> str:
    """The name of the campaign that `argument` means: that of a folder or file, or a name as it is."""
    path = Path(argument)
    return (_whose(path)[1] or argument) if path.exists() else argument


def _pattern(name: str) -> re.Pattern[str]:
    """The names of a campaign's runs; not those of another whose name begins alike, nor runs that were replaced."""
    started = r"(-to-\d{8}-\d{6}(-\d+)?)?"
    return re.compile((pattern_of(name, file_stem) + started if name else "[^.]+") + r"(\.rehearsal)?\.outbox")


def _is_rehearsal(outbox: Path) -> bool:
    """What the outbox says of itself; of one that cannot be read, what its name says."""
    from bulkmail.outbox.outbox_reader import OutboxReader  # late: a new run needs none of it

    try:
        with OutboxReader.open(outbox) as reader:
            return reader.is_rehearsal
    except OutboxError:
        return outbox.name.endswith(REHEARSAL_SUFFIX)


def _last_written(outbox: Path) -> float:
    """A running outbox is written beside itself, into its write-ahead log."""
    return max(path.stat().st_mtime for path in _with_log(outbox))


def _with_log(outbox: Path) -> Iterator[Path]:
    yield outbox
    log = outbox.with_name(outbox.name + "-wal")
    if log.exists():
        yield log


def _runs_nearby() -> str:
    runs = sorted(Path(FOLDER).glob(f"*{SUFFIX}"), key=_last_written)
    return f"the latest here is {runs[-1]}" if runs else "name an outbox file, or the folder of a campaign"


def find_inbox(argument: str) -> Path:
    """The Maildir that `argument` means: itself, or the latest that a rehearsal of a campaign left.

    Raises `ConfigError` that names what was looked for.
    """
    path = Path(argument)
    if _is_maildir(path):
        return path
    if not path.exists():
        raise ConfigError(f"{argument}: there is no such mail folder or campaign", hint="bulkmail inbox FOLDER")
    if path.suffix == SUFFIX:
        folder, name = path.parent, path.name.partition(".")[0]
    else:
        home, name = _whose(path)
        folder = home / FOLDER
    pattern = re.compile((pattern_of(name, file_stem) + r"(\..*|-to-.*)?") if name else ".*")
    found = [kept for kept in folder.glob("*") if _is_maildir(kept) and pattern.fullmatch(kept.name)]
    linked = [kept for kept in found if any(each.is_symlink() for each in (kept, kept / "new", kept / "cur"))]
    found = [kept for kept in found if kept not in linked]
    if linked and not found:
        raise ConfigError(
            f"{linked[0]}: is a link, or holds one, and so may be real mail instead of a rehearsal's",
            hint=f"if you want to read it: bulkmail inbox {linked[0]}",
        )
    if not found:
        raise ConfigError(
            f"{argument}: has no mail: there is no mail folder in {folder}",
            hint=f'bulkmail send {argument} rehearses a campaign whose relay is "sandbox:"',
        )
    return max(found, key=lambda kept: (kept / "new").stat().st_mtime)


def _is_maildir(path: Path) -> bool:
    return all((path / name).is_dir() for name in ("new", "cur"))
