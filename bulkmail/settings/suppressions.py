"""Which suppression list holds and what of it: `[suppressions]` of a campaign, of the user, and the environment."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bulkmail.model.lazy import dataclass
from bulkmail.model.suppression import ALL_REASONS, SuppressionReason, SuppressionRules
from bulkmail.settings.problems import Problems

if TYPE_CHECKING:
    from bulkmail.settings.layers import KeyPath, Sources
    from bulkmail.settings.schema import Mistake, SuppressionsTable, UserFile

VARIABLE = "BULKMAIL_SUPPRESSIONS"
FILE_NAME = "suppressions.db"
USER_FILE = "config.toml"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class SuppressionSettings:
    """The list in `file` (None: `suppressions.db` in the state folder) and what a campaign applies of it.

    `store` is the URL of a store in PostgreSQL whose list is used instead of a file, empty for none.
    `rules` say what puts an address on it.  `place` is where `apply` was written, for errors.
    """

    file: Path | None = None
    apply: frozenset[SuppressionReason] = ALL_REASONS
    rules: SuppressionRules = field(default_factory=SuppressionRules)
    place: str = "[suppressions] apply"
    store: str = ""

    def path(self, environ: Mapping[str, str] = os.environ) -> Path:
        """The list's file, absolute; it need not be there yet.  Raises `RuntimeError` where there is no home folder."""
        from bulkmail.outbox.ledger import state_folder

        return (self.file or state_folder(environ) / FILE_NAME).absolute()

    def is_there(self) -> bool:
        """Whether there is such a list.  Raises `RuntimeError` where there is no home folder."""
        return bool(self.store) or self.path().exists()


@dataclass(frozen=True, slots=True)
class _OneTable:
    """One `[suppressions]`, with the file that it is in."""

    table: SuppressionsTable
    path: Path | None
    sources: Sources


def user_file(environ: Mapping[str, str] = os.environ, *, platform: str = sys.platform) -> Path:
    """`config.toml` in the user's configuration folder, which need not be there."""
    home = Path(environ.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    if platform == "win32":
        return Path(environ.get("APPDATA") or home / "AppData/Roaming") / "bulkmail" / USER_FILE
    chosen = environ.get("XDG_CONFIG_HOME", "")
    # The XDG base directory specification: a relative path there is to be ignored.
    return (Path(chosen) if Path(chosen).is_absolute() else home / ".config") / "bulkmail" / USER_FILE


def load_suppressions(environ: Mapping[str, str] = os.environ) -> SuppressionSettings:
    """The settings that hold for all campaigns.  Raises `ConfigError`."""
    problems = Problems()
    if not has_user_file(environ):  # most have none, and reading one imports pydantic
        return SuppressionSettings(Path(environ[VARIABLE]) if environ.get(VARIABLE) else None)
    settings = _build([_user_table(environ, problems)], environ)
    problems.raise_if_any(next_command="")
    return settings


def build_suppressions(sources: Sources) -> SuppressionSettings:
    """The settings of one campaign: its own table, else the environment's, else the user's.  Faults are reported."""
    own = _OneTable(sources.file.suppressions, sources.path, sources)
    return _build([own, _user_table(sources.environ, sources.problems)], sources.environ)


def has_user_file(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the user has settings for all campaigns."""
    try:
        return user_file(environ).exists()
    except (OSError, RuntimeError):  # no home folder, or one that may not be looked into
        return False


def open_user_file(path: Path | None, environ: Mapping[str, str], problems: Problems) -> tuple[UserFile, Sources]:
    """The settings at `path`, by default the user's own, which need not be there, and where each of them stands.

    Faults are reported; raises `ConfigError` for a file that cannot be read or is not TOML.
    """
    from bulkmail.settings.layers import Sources, locate_keys, parse_toml, read_text
    from bulkmail.settings.overrides import Overrides
    from bulkmail.settings.schema import CampaignFile, UserFile, read_user_file

    file, is_asked_for = UserFile(), path is not None
    lines: Mapping[KeyPath, int] = {}
    mistakes: list[Mistake] = []
    with suppress(RuntimeError):  # no home folder
        path = path or user_file(environ)
    if path is not None and (is_asked_for or os.path.exists(path)):
        text = read_text(path)
        data = parse_toml(text, path)
        lines = locate_keys(text)
        file, mistakes = read_user_file(data, environ)
    broken = frozenset(mistake.path for mistake in mistakes)
    sources = Sources(Overrides(), environ, problems, path, CampaignFile(), lines, broken)
    for mistake in mistakes:
        problems.add(f"{path}:{sources.line(mistake.path)}: {mistake.text}", mistake.fix)
    return file, sources


def _user_table(environ: Mapping[str, str], problems: Problems) -> _OneTable:
    file, sources = open_user_file(None, environ, problems)
    return _OneTable(file.suppressions, sources.path, sources)


def _build(tables: list[_OneTable], environ: Mapping[str, str]) -> SuppressionSettings:
    """What the first table says that says something of a key."""

    def said(key: str, usual: T) -> T:
        return next((getattr(each.table, key) for each in tables if key in each.table.model_fields_set), usual)

    rules, usual = SuppressionRules(), SuppressionSettings()
    applied = next((each.sources for each in tables if "apply" in each.table.model_fields_set), None)
    return SuppressionSettings(
        file=_file(tables, environ),
        apply=said("apply", usual.apply),
        rules=SuppressionRules(
            hard=said("hard", rules.hard),
            soft=said("soft", rules.soft),
            counts_unproved=said("unsigned", rules.counts_unproved),
        ),
        place=usual.place if applied is None else applied.place(("suppressions", "apply")),
    )


def _file(tables: list[_OneTable], environ: Mapping[str, str]) -> Path | None:
    """The campaign's, then the environment's, then the user's: an agency's clients must never share one by accident."""
    from bulkmail.settings.campaign_files import resolve

    for each in tables:
        if each is tables[-1] and (chosen := environ.get(VARIABLE)):
            return Path(chosen)
        if said := each.sources.pick(("suppressions", "file"), each.table.file):
            return resolve(said)
    return None
