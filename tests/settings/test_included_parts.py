"""What a message includes is read beforehand, and only from the campaign's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkmail.model.campaign import Template
from bulkmail.model.errors import ConfigError
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.settings import load
from tests.settings.conftest import SOUND, MakeShop


def test_parts_are_found_through_one_another(make_shop: MakeShop) -> None:
    make_shop(
        SOUND.replace("Hello {{ name }}", "{% include 'title.txt' %}"),
        **{
            "message.txt": "{% extends 'base.txt' %}{% import 'parts/money.txt' as money %}",
            "base.txt": "{% from 'parts/money.txt' import euros %}{% include ['gone.txt', 'parts/foot.txt'] %}",
            "parts__money.txt": "{% macro euros(n) %}{{ n }} €{% endmacro %}",
            "parts__foot.txt": "{% include 'base.txt' %}{% include 'never.txt' ignore missing %}",
            "title.txt": "\ufeffHello\r\n{% include 'a.txt' if x else 'b.txt' %}",
            "a.txt": "{% include 'b.txt' if x %}",
            "b.txt": "",
        },
    )
    parts = load("shop").campaign.partials
    assert [part.name for part in parts] == [
        "a.txt",
        "b.txt",
        "base.txt",
        "parts/foot.txt",
        "parts/money.txt",
        "title.txt",
    ]
    assert parts[-1] == Template("title.txt", "Hello\n{% include 'a.txt' if x else 'b.txt' %}")


def test_parts_of_a_message_by_flags_are_in_the_current_folder(shop: Path) -> None:
    Path("foot.txt").write_text("Bye")
    settings = load(
        None,
        Overrides(sender="a@b.example", subject="Hi", to=("a@b.example",), text="Hello\n{% include 'foot.txt' %}"),
    )
    assert settings.campaign.partials == (Template("foot.txt", "Bye"),)


def test_part_reached_by_a_link_within_the_folder_is_read(make_shop: MakeShop) -> None:
    make_shop(**{"message.txt": "{% include 'foot.txt' %}", "real.txt": "Bye"})
    Path("shop/foot.txt").symlink_to("real.txt")
    assert load("shop").campaign.partials == (Template("foot.txt", "Bye"),)


@pytest.mark.parametrize(
    ("template", "message", "hint"),
    [
        pytest.param(
            "Hello\n{% include 'foto.txt' %}",
            'message.txt:2: includes "foto.txt", which is not in shop',
            'did you mean "foot.txt"?',
            id="missing",
        ),
        pytest.param(
            "{% include ['x', 'y'] %}",
            '2 things are wrong; nothing was sent:\n  message.txt:1: includes "x", which is not in shop\n'
            '  message.txt:1: includes "y", which is not in shop',
            "fix them, then type: bulkmail check shop",
            id="none-of-several",
        ),
        pytest.param(
            "{% include '../secret.txt' %}",
            'message.txt:1: includes "../secret.txt", but only what is below shop is read, by a path without ".."',
            "copy it into the campaign's folder",
            id="above",
        ),
        pytest.param(
            "{% include 'sub/../../a.txt' %}",
            'message.txt:1: includes "sub/../../a.txt", but only what is below shop is read, by a path without ".."',
            "copy it into the campaign's folder",
            id="above-by-a-detour",
        ),
        pytest.param(
            "{% include 'sub/../foot.txt' %}",
            'message.txt:1: includes "sub/../foot.txt", but only what is below shop is read, by a path without ".."',
            "copy it into the campaign's folder",
            id="detour-within",
        ),
        pytest.param(
            "{% include '/etc/hostname' %}",
            'message.txt:1: includes "/etc/hostname", but only what is below shop is read, by a path without ".."',
            "copy it into the campaign's folder",
            id="absolute",
        ),
        pytest.param(
            "{% include 'link.txt' %}",
            'message.txt:1: includes "link.txt", but only what is below shop is read, by a path without ".."',
            "copy it into the campaign's folder",
            id="link-out",
        ),
        pytest.param(
            "{% include 'linked/secret.txt' %}",
            'message.txt:1: includes "linked/secret.txt", but only what is below shop is read, by a path without ".."',
            "copy it into the campaign's folder",
            id="folder-that-is-a-link-out",
        ),
        pytest.param(
            "{% include 'loop.txt' %}",
            'message.txt:1: includes "loop.txt", but only what is below shop is read, by a path without ".."',
            "copy it into the campaign's folder",
            id="link-to-itself",
        ),
        pytest.param(
            "{% include '..\\\\secret.txt' %}",
            'message.txt:1: includes "..\\\\secret.txt", which is not in shop',
            "",
            id="backslash",
        ),
        pytest.param("{% include 'a\\0b' %}", 'message.txt:1: includes "a b", which is not in shop', "", id="nul"),
        pytest.param("{% include '' %}", 'message.txt:1: includes "", which is not in shop', "", id="empty"),
        pytest.param("{% include 'sub' %}", 'message.txt:1: includes "sub", which is not in shop', "", id="folder"),
        pytest.param(
            "{% include name ~ '.txt' %}",
            "message.txt:1: includes a file whose name is computed",
            "write the name in quotes; it is read beforehand",
            id="computed",
        ),
        pytest.param(
            "{% include ['foot.txt', name] %}",
            "message.txt:1: includes a file whose name is computed",
            "write the name in quotes; it is read beforehand",
            id="partly-computed",
        ),
        pytest.param(
            "{% include 5 %}",
            "message.txt:1: includes a file whose name is computed",
            "write the name in quotes; it is read beforehand",
            id="number",
        ),
        pytest.param(
            "{% include 'latin.txt' %}",
            'message.txt:1: include = "latin.txt": line 1 is not UTF-8',
            "save the file as UTF-8",
            id="not-utf-8",
        ),
        pytest.param(
            "{% include 'foot.txt' %}{% if %}",
            "message.txt:1: Expected an expression, got 'end of statement block'",
            "see https://jinja.palletsprojects.com",
            id="not-jinja",
        ),
        pytest.param(
            "{{ " + "(" * 5000, "message.txt: is nested too deeply", "make it simpler", id="nested-too-deeply"
        ),
    ],
)
def test_load_refuses_a_part(make_shop: MakeShop, template: str, message: str, hint: str) -> None:
    shop = make_shop(**{"message.txt": template, "foot.txt": "", "latin.txt": b"caf\xe9", "sub__x.txt": ""})
    Path("secret.txt").write_text("secret")
    (shop / "link.txt").symlink_to("../secret.txt")
    (shop / "linked").symlink_to("..")
    (shop / "loop.txt").symlink_to("loop.txt")
    with pytest.raises(ConfigError) as caught:
        load("shop")
    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_load_refuses_an_absolute_name_even_of_its_own_folder(make_shop: MakeShop) -> None:
    name = Path("shop/foot.txt").absolute()
    make_shop(**{"message.txt": f"{{% include '{name}' %}}", "foot.txt": ""})
    with pytest.raises(ConfigError, match="but only what is below shop is read"):
        load("shop")
