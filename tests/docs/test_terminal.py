"""docs/terminal.svg shows what the commands say."""

from __future__ import annotations

import importlib.util
import re
from html import unescape
from pathlib import Path

import pytest

from tests.docs.pages import DOCS
from tests.docs.test_tutorial import plain


@pytest.mark.slow
def test_terminal_picture_shows_what_the_commands_say(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("docs_terminal", DOCS / "terminal.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    picture = (DOCS / "terminal.svg").read_text(encoding="utf-8")
    shown = [unescape(re.sub("<[^>]*>", "", line)) for line in re.findall("<text .*?>(.*)</text>", picture)]
    assert plain("\n".join(shown)) == plain("\n".join(script.record(tmp_path))), "type: python docs/terminal.py"
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "") and "<script" not in picture
