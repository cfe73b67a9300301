"""The console's templates: nothing else of a package is taken for one."""

from __future__ import annotations

import bulkmail.pages.plots  # noqa: F401 (so that Python may have written its compiled form beside the kit)
from bulkmail.console.pages import _environment


def test_only_pages_are_templates() -> None:
    names = _environment().list_templates()
    assert "kit/macros.html" in names
    assert [name for name in names if not name.endswith(".html")] == []
