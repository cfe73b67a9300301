"""Writes docs/commands.md from the commands themselves: python docs/commands.py"""

from __future__ import annotations

import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "commands.md"
WIDTH = 80  # columns, as in a terminal

HEAD = """\
# Commands

What `bulkmail COMMAND --help` says, for reading here. This page is written by `python docs/commands.py`; change the
commands, not the page.

Every command ends with an exit code: 0 done, 1 some rows failed, 2 nothing was done because something is wrong, 3
stopped before the end, 4 rows in doubt, 70 a bug of ours. Output in a pipe has no colours and no cursor movement;
`NO_COLOR=1` keeps colours out of a terminal too. `--progress plain` writes whole lines instead of a bar, for screen
readers and logs; it is the default in a pipe and where `TERM=dumb`. `--progress json` makes every line on standard
error a JSON object, for programs, and `--progress none` is for cron.
"""


def page() -> str:
    """The whole page."""
    from bulkmail.cli import main
    from bulkmail.cli.program import COMMANDS

    parts = [HEAD]
    root = click.Context(
        main, info_name="bulkmail", terminal_width=WIDTH, help_option_names=main.context_settings["help_option_names"]
    )
    parts.append(_block(main.get_help(root)))
    for name in COMMANDS:
        command = main.get_command(root, name)
        if command is not None:
            with click.Context(command, info_name=name, parent=root, terminal_width=WIDTH) as context:
                parts.append(f"## bulkmail {name}\n\n{_block(command.get_help(context))}")
                parts += _parts_of(command, name, context)
    return "\n".join(parts)


def _parts_of(command: click.Command, name: str, context: click.Context) -> list[str]:
    """The commands of a group, each as a section below it."""
    if not isinstance(command, click.Group):
        return []
    parts = []
    for part in command.commands.values():
        with click.Context(part, info_name=part.name, parent=context, terminal_width=WIDTH) as inner:
            parts.append(f"### bulkmail {name} {part.name}\n\n{_block(part.get_help(inner))}")
    return parts


def _block(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    TARGET.write_text(page(), encoding="utf-8")
