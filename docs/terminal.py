"""Records docs/terminal.svg, the picture of a terminal in the README, from a real run: python docs/terminal.py"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "terminal.svg"
COMMANDS = ("init spring", "check spring", "send spring", "inbox spring")
COLUMNS = 80
CHARACTER, LINE, EDGE, BAR = 8.0, 19, 18, 30  # px
STYLE = """\
text { font: 13.3px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #d8dee9; white-space: pre }
.command { fill: #ffffff; font-weight: bold }
.prompt { fill: #8fbc7a }
.good { fill: #8fbc7a }
.quiet { fill: #9aa5b8 }
"""


def record(folder: Path) -> list[str]:
    """The lines that a terminal in `folder` shows when the commands are typed in turn."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BULKMAIL_")}
    env = kept | {
        "PYTHONPATH": str(ROOT),
        "COLUMNS": str(COLUMNS),
        "NO_COLOR": "1",
        "TZ": "UTC",
        "BULKMAIL_STATE_DIR": str(folder / "state"),
    }
    lines = []
    for command in COMMANDS:
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "bulkmail", *command.split()],
            cwd=folder, env=env, check=True, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        lines += [f"$ bulkmail {command}", *done.stdout.rstrip().splitlines(), ""]
    return lines[:-1]


def svg(lines: list[str]) -> str:
    """A picture of `lines`: text that can be selected and searched, no script, nothing from the network."""
    width = round(COLUMNS * CHARACTER + 2 * EDGE)
    height = BAR + EDGE + len(lines) * LINE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' role="img" aria-label="A campaign is made, checked, rehearsed and looked at">',
        f"<style>\n{STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#20242c"/>',
        *(f'<circle cx="{EDGE + 18 * n}" cy="17" r="5.5" fill="#4a5263"/>' for n in range(3)),
    ]
    for number, line in enumerate(lines):
        if line:
            parts.append(f'<text x="{EDGE}" y="{BAR + (number + 1) * LINE - 5}">{_styled(line)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _styled(line: str) -> str:
    if line.startswith("$ "):
        return f'<tspan class="prompt">$</tspan><tspan class="command">{escape(line[1:])}</tspan>'
    if " accepted" in line or line.startswith("Ready:"):
        return f'<tspan class="good">{escape(line)}</tspan>'
    if line.startswith("  "):
        return f'<tspan class="quiet">{escape(line)}</tspan>'
    return escape(line)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        TARGET.write_text(svg(record(Path(folder))), encoding="utf-8")
