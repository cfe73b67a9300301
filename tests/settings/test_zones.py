"""Time zones by name, and the one that this machine says it is in."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bulkmail.model.errors import ConfigError
from bulkmail.settings.parsers import find_zone


def test_zone_is_found_by_name() -> None:
    assert find_zone("Europe/Vienna") == ZoneInfo("Europe/Vienna")
    assert find_zone("utc") is UTC


def test_zone_of_this_machine_is_what_it_says(tmp_path: Path) -> None:
    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/Asia/Tokyo")
    assert find_zone("", environ={}, local_time=link) == ZoneInfo("Asia/Tokyo")
    assert find_zone("", environ={"TZ": ":Europe/Vienna"}, local_time=link) == ZoneInfo("Europe/Vienna")


@pytest.mark.parametrize("name", ["Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "a\0b", "x" * 5000])
def test_zone_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a time zone") as caught:
        find_zone(name)
    assert caught.value.hint
    assert len(str(caught.value)) < 200


def test_zone_that_is_misspelt_is_guessed() -> None:
    with pytest.raises(ConfigError) as caught:
        find_zone("Europe/Viena")
    assert caught.value.hint == 'did you mean "Europe/Vienna"?'


def test_zone_of_a_machine_that_does_not_say_has_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not say which time zone"):
        find_zone("", environ={}, local_time=tmp_path / "none")
    with pytest.raises(ConfigError, match="none that is known"):
        find_zone("", environ={"TZ": "CET-1CEST"}, local_time=tmp_path / "none")
