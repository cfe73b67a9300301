"""A shop's folder in an empty current folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

SOUND = """\
relay = "sandbox:"
recipients = "people.csv"

[message]
from = "Corner Shop <hello@shop.example>"
subject = "Hello {{ name }}"
text = "message.txt"
"""

MakeShop = Callable[..., Path]


@pytest.fixture
def make_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeShop:
    """Writes `shop/` with a campaign file, a list, a message and what else is named; the folder above is current."""
    monkeypatch.chdir(tmp_path)
    for name in ("BULKMAIL_RELAY", "BULKMAIL_PASSWORD", "BULKMAIL_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def make(toml: str | bytes = SOUND, /, *, folder: str = "shop", **files: str | bytes) -> Path:
        home = Path(folder)
        home.mkdir()
        (home / "campaign.toml").write_bytes(toml if isinstance(toml, bytes) else toml.encode())
        contents: dict[str, str | bytes] = {
            "people.csv": "email,name\nann@example.com,Ann\n",
            "message.txt": "Hello {{ name }}\n",
            **{name.replace("__", "/"): content for name, content in files.items()},
        }
        for name, content in contents.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return home

    return make


@pytest.fixture
def shop(make_shop: MakeShop) -> Path:
    """A shop without a fault."""
    return make_shop()
