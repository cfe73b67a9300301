"""The values of a campaign: `[data]`, files that it names, `--set`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bulkmail
from bulkmail.message.compose.composer import Composer
from bulkmail.message.template.constants import read_values
from bulkmail.model.errors import ConfigError
from bulkmail.model.recipient import Address, Place, Recipient
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.settings import load

GUIDE = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
TOP = (
    'recipients = "people.csv"\n[message]\nfrom = "shop@shop.example"\nsubject = "{{ season }}"\ntext = "message.txt"\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "people.csv").write_text("email,name\nann@example.com,Ann\n")
    (tmp_path / "message.txt").write_text("{{ name }}: {{ season }}\n")
    (tmp_path / "campaign.toml").write_text(TOP + '[data]\nseason = "spring"\n')
    return tmp_path


def values_of(folder: Path, *typed: str) -> dict[str, object]:
    return dict(read_values(load(str(folder), Overrides(values=typed)).campaign.data))


def faults(folder: Path, text: str, *typed: str) -> str:
    (folder / "campaign.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(str(folder), Overrides(values=typed))
    return str(caught.value)


def rendered(campaign: bulkmail.Campaign, **fields: object) -> str | None:
    recipient = Recipient(Address.parse("ann@example.com"), "", fields, Place("people.csv", 2))
    return Composer(campaign, run_id="r").render(recipient).text


def test_values_are_in_every_template(folder: Path) -> None:
    campaign = load(str(folder)).campaign
    assert rendered(campaign, name="Ann") == "Ann: spring\n"
    assert rendered(campaign, name="Ann", season="autumn") == "Ann: autumn\n"  # a column of that name


def test_typed_value_goes_before_the_file_and_changes_the_message(folder: Path) -> None:
    assert values_of(folder, "season=summer", "x=a=b") == {"season": "summer", "x": "a=b"}
    prints = {load(str(folder), Overrides(values=typed)).campaign.fingerprint for typed in ((), ("season=summer",))}
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("products.json", '[{"name": "Tulip", "price": 19.90}]', {"products": [{"name": "Tulip", "price": 19.90}]}),
        ("values.json", '{"season": "spring"}', {"season": "spring"}),
        ("values.toml", 'season = "spring"\nuntil = 2026-12-24', {"season": "spring", "until": "2026-12-24"}),
        ("products.csv", "name;price\nTulip;19,90\n\n", {"products": [{"name": "Tulip", "price": "19,90"}]}),
        ("products.csv", '\ufeffname,text\nTulip,"a\nb, c"\n', {"products": [{"name": "Tulip", "text": "a\nb, c"}]}),
    ],
)
def test_data_may_be_a_file(folder: Path, name: str, content: str, expected: dict[str, object]) -> None:
    (folder / name).write_text(content, encoding="utf-8")
    (folder / "campaign.toml").write_text(f'data = "{name}"\n' + TOP)
    assert values_of(folder) == expected


def test_prices_keep_their_digits(folder: Path) -> None:
    (folder / "more.json").write_text('{"price": 19.90}')
    (folder / "campaign.toml").write_text(TOP + '[data]\nprice = 19.90\nseason = 1\nmore = { file = "more.json" }\n')
    (folder / "message.txt").write_text("{{ price }} {{ more.price }}\n")
    assert rendered(load(str(folder)).campaign) == "19.90 19.90\n"


@pytest.mark.parametrize(
    ("text", "typed", "expected"),
    [
        (TOP + "[data]\nrow = 1\n", (), 'campaign.toml:7: row: "row" means something else in a template'),
        (TOP + '[data]\n"a b" = 1\n', (), '"a b" is not a name'),
        ("data = 5\n" + TOP, (), "expected a table or the name of a file"),
        ('data = "nothing.json"\n' + TOP, (), "there is no such file"),
        ('data = "message.txt"\n' + TOP, (), "is none of .json, .toml and .csv"),
        ('data = "broken.json"\n' + TOP, (), "Input data was truncated"),
        ('data = "broken.csv"\n' + TOP, (), "line 2: has 3 cells, expected 2"),
        ('data = "twice.csv"\n' + TOP, (), "line 1: a column has no name, or two have the same"),
        (TOP + "[data]\nx = inf\n", (), "too large a number"),
        (TOP, ("season",), "has no ="),
        (TOP, ("email=x",), '--set: "email" means something else in a template'),
    ],
)
def test_fault_is_reported_with_its_place(folder: Path, text: str, typed: tuple[str, ...], expected: str) -> None:
    (folder / "broken.json").write_text('{"a": ')
    (folder / "broken.csv").write_text("a,b\n1,2,3\n")
    (folder / "twice.csv").write_text("a,a\n1,2\n")
    assert expected in faults(folder, text, *typed)


def test_library_takes_values() -> None:
    campaign = bulkmail.compose(
        from_="shop@shop.example",
        subject="x",
        text="{{ season }} {{ shop.city }}",
        data={"season": 1, "shop": {"city": "Graz"}},
    )
    assert rendered(campaign) == "1 Graz\n"
    for bad in ({"a b": 1}, {"x": object()}, {"row": 1}):
        with pytest.raises(ConfigError, match=r"^data: "):
            bulkmail.compose(from_="shop@shop.example", subject="x", text="x", data=bad)


def test_guide_example_renders(folder: Path) -> None:
    section = GUIDE.partition("### Values of the campaign\n")[2].partition("\n### ")[0]
    (settings, template) = re.findall(r"^```(?:jinja)?\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    (folder / "products.csv").write_text("name,price\nTulip,19.90\nRose,5\n")
    (folder / "message.txt").write_text(template)
    (folder / "campaign.toml").write_text(TOP + settings)
    assert rendered(load(str(folder)).campaign) == ("15 % off this spring in Graz:\n* Tulip, €19.90\n* Rose, €5.00\n")
