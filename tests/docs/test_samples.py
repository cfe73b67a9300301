"""Samples and templates: they run as they are, and show what good messages look like."""

from __future__ import annotations

import csv
import email
import email.policy
import re
import shutil
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterator
from email.headerregistry import AddressHeader
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import cast

import pytest
from click.testing import CliRunner, Result

from bulkmail.cli import main
from bulkmail.model.relay import Kind
from bulkmail.sandbox.inbox import Inbox
from bulkmail.settings.schema import read_campaign
from bulkmail.settings.settings import load

ROOT = Path(__file__).parents[2]
CAMPAIGNS = [
    path.parent for folder in ("samples", "templates") for path in sorted(ROOT.glob(f"{folder}/*/campaign.toml"))
]
IDS = [f"{path.parent.name}/{path.name}" for path in CAMPAIGNS]
MESSAGES = [path for campaign in CAMPAIGNS for path in sorted(campaign.glob("*.html"))]

each_campaign = pytest.mark.parametrize("campaign", CAMPAIGNS, ids=IDS)
each_page = pytest.mark.parametrize("page", MESSAGES, ids=[str(path.relative_to(ROOT)) for path in MESSAGES])


def files_of(campaign: Path) -> list[Path]:
    """What belongs to a campaign; not what a rehearsal left in the checkout."""
    found = [path for path in campaign.rglob("*") if path.is_file()]
    kept = [path for path in found if "runs" not in path.relative_to(campaign).parts]
    assert kept, campaign
    return kept


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of samples and templates to send from, in the current folder."""
    for folder in ("samples", "templates"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("runs"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BULKMAIL_RELAY", raising=False)
    return tmp_path


def send(campaign: str) -> Result:
    return CliRunner().invoke(main, ["send", campaign, "--progress", "none"], prog_name="bulkmail")


def report(campaign: str) -> list[dict[str, str]]:
    name = Path(campaign).name
    with open(f"{campaign}/runs/{name}.rehearsal-report.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def kept(campaign: str) -> Iterator[EmailMessage]:
    inbox = Inbox(Path(f"{campaign}/runs/{Path(campaign).name}.inbox"))
    for found in inbox:
        yield cast(EmailMessage, email.message_from_bytes(found.path.read_bytes(), policy=email.policy.default))


def test_there_are_the_samples_and_templates_that_the_guide_names() -> None:
    assert IDS == [
        "samples/invoice",
        "samples/newsletter",
        "samples/rough",
        "templates/invoice",
        "templates/mail-merge",
        "templates/newsletter",
    ]


@each_campaign
def test_campaign_has_no_fault_and_writes_to_no_one(campaign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKMAIL_RELAY", "smtp://mail.example.com")
    settings = load(str(campaign))
    assert settings.relay is not None
    assert settings.relay.kind is Kind.SANDBOX


ADDRESS = re.compile(r"[\w.+-]+@([\w.-]+)|https?://([\w.-]+)|smtps?://(?:\w+@)?([\w.-]+)")
RESERVED = re.compile(r"(.*\.)?(example|example\.(com|net|org))", re.IGNORECASE)


@each_campaign
def test_campaign_names_only_domains_that_no_one_has(campaign: Path) -> None:
    for path in files_of(campaign):
        if path.suffix == ".pdf":
            continue
        for found in ADDRESS.finditer(path.read_text("utf-8")):
            domain = next(filter(None, found.groups()))
            assert RESERVED.fullmatch(domain) or domain == "example,org", f"{path}: {found[0]}"


@each_campaign
def test_campaign_keeps_its_lines_short_and_its_ends_clean(campaign: Path) -> None:
    for path in files_of(campaign):
        if path.suffix in (".toml", ".txt"):
            text = path.read_text("utf-8")
            assert text.endswith("\n")
            assert not re.search(r"[ \t]$|\t|\r", text, re.MULTILINE), path
            assert max(map(len, text.splitlines())) <= (120 if path.suffix == ".toml" else 78), path


@pytest.mark.parametrize(
    "campaign", [path for path in CAMPAIGNS if path.parent.name == "templates"], ids=lambda path: path.name
)
def test_every_setting_behind_a_note_is_one(campaign: Path) -> None:
    """Anyone who takes a # away must not be met by an error."""
    text = (campaign / "campaign.toml").read_text("utf-8")
    noted = list(re.finditer(r"^# ((\w+) = .*)$", text, re.MULTILINE))
    assert len(noted) >= 2
    for found in noted:
        table = (re.findall(r"^\[(\w+)\]$", text[: found.start()], re.MULTILINE) or [""])[-1]
        changed = text[: found.start()] + found[1] + text[found.end() :]
        before = re.compile(rf"^{found[2]} = .*$", re.MULTILINE)
        if before.search(text):
            changed = before.sub("", text, count=1).replace(f"# {found[1]}", found[1])
        data = tomllib.loads(changed)
        assert found[2] in (data[table] if table else data)
        assert read_campaign(data, {})[1] == []


# --- sent -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("campaign", "exit_code", "statuses"),
    [
        ("samples/newsletter", 0, {"accepted": 25}),
        ("samples/invoice", 0, {"accepted": 4}),
        ("samples/rough", 1, {"accepted": 3, "invalid": 2, "duplicate": 1, "suppressed": 2, "filtered": 1}),
        ("templates/newsletter", 0, {"accepted": 3}),
        ("templates/mail-merge", 0, {"accepted": 3}),
        ("templates/invoice", 0, {"accepted": 2}),
    ],
)
def test_campaign_is_sent_as_promised(at_work: Path, campaign: str, exit_code: int, statuses: dict[str, int]) -> None:
    result = send(campaign)
    assert result.exit_code == exit_code, result.stderr
    assert result.stdout.startswith("Rehearsal: no mail was sent to your recipients.\n")
    rows = report(campaign)
    assert Counter(row["delivery_status"] for row in rows) == statuses
    accepted = sorted(row["delivery_message_id"] for row in rows if row["delivery_status"] == "accepted")
    assert sorted(str(message["Message-ID"]) for message in kept(campaign)) == accepted


@pytest.mark.slow
def test_newsletter_reaches_people_in_many_scripts_by_their_names(at_work: Path) -> None:
    assert send("samples/newsletter").exit_code == 0
    with open("samples/newsletter/people.csv", encoding="utf-8", newline="") as file:
        people = {row["email"]: row["name"] for row in csv.DictReader(file)}
    assert len(people) == 25
    found = {}
    for message in kept("samples/newsletter"):
        (to,) = cast(AddressHeader, message["To"]).addresses
        domain = to.domain.encode().decode("idna") if to.domain.startswith("xn--") else to.domain
        found[f"{to.username}@{domain}"] = to.display_name
        text = message.get_body(("plain",))
        page = message.get_body(("html",))
        assert text is not None
        assert page is not None
        assert text.get_content().startswith(f"Good morning {to.display_name},\n")
        assert str(message["Subject"]).startswith(f"{to.display_name}, ")
        assert "{" not in re.sub(r"(?s)<style>.*</style>", "", text.get_content() + page.get_content())
    assert found == people
    scripts = {unicodedata.name(char).split()[0] for name in people.values() for char in name if char.isalpha()}
    assert len(scripts) == 13, scripts


@pytest.mark.slow
def test_bills_have_their_own_lines_and_the_terms(at_work: Path) -> None:
    assert send("samples/invoice").exit_code == 0
    for message in kept("samples/invoice"):
        (terms,) = message.iter_attachments()
        assert terms.get_filename() == "Terms – Spoke & Hub.pdf"
        assert terms.get_content() == Path("samples/invoice/terms.pdf").read_bytes()
        text = message.get_body(("plain",))
        assert text is not None
        prices = [float(price) for price in re.findall(r"×.* (\d+\.\d\d)$", text.get_content(), re.MULTILINE)]
        counts = [int(number) for number in re.findall(r"^ *(\d+) ×", text.get_content(), re.MULTILINE)]
        (total,) = re.findall(r"Total in euros +(\d+\.\d\d)$", text.get_content(), re.MULTILINE)
        assert sum(number * price for number, price in zip(counts, prices, strict=True)) == pytest.approx(float(total))


@pytest.mark.slow
def test_what_a_cell_holds_is_text_in_the_page(at_work: Path) -> None:
    assert send("samples/invoice").exit_code == 0
    pages = [message.get_body(("html",)) for message in kept("samples/invoice")]
    assert sum("Wheel trued &lt;rear&gt;" in page.get_content() for page in pages if page is not None) == 1


@pytest.mark.slow
def test_rough_list_is_reported_row_by_row(at_work: Path) -> None:
    result = send("samples/rough")
    assert result.exit_code == 1
    reported = {(row["email"], row["delivery_status"]): row["delivery_error"] for row in report("samples/rough")}
    assert "example,org" in reported["chloe.lefevre@example,org", "invalid"]
    assert "'name' is undefined" in reported["dmitri.sokolov@example.com", "invalid"]
    assert ("ANN.LI@example.com", "duplicate") in reported
    assert "stop.txt" in reported["gal.benami@example.org", "suppressed"]
    assert "stop.txt" in reported["eleni.papadaki@moved.example", "suppressed"]
    assert ("hina.sato@example.net", "filtered") in reported


# --- pages ------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags and attributes of a page, and whether every element is closed where it should be."""

    VOID = frozenset({"meta", "br", "img", "hr", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.feed(re.sub(r"{%.*?%}|{#.*?#}", "", text, flags=re.DOTALL))
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


@each_page
def test_page_is_sound_html(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text.startswith("<!DOCTYPE html>\n")
    found = Page(text)
    assert found.open == []
    assert found.of("html")[0]["lang"] == "en"
    assert len(found.of("title")) == 1
    assert {"charset": "utf-8"} in found.of("meta")


@each_page
def test_page_asks_nothing_of_the_network_and_runs_nothing(page: Path) -> None:
    found = Page(page.read_text("utf-8"))
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"script", "link", "iframe", "form", "img", "object", "video"}
    assert all(link["href"].startswith(("mailto:", "https:")) for link in found.of("a"))
    assert "url(" not in page.read_text("utf-8")


@each_page
def test_page_can_be_read_by_ear_and_in_the_dark(page: Path) -> None:
    text = page.read_text("utf-8")
    found = Page(text)
    for table in found.of("table"):
        is_data = table.get("role") != "presentation"
        assert not is_data or "<th scope=" in text, "a table of data has headings, one for layout says that it is"
    assert {"name": "color-scheme", "content": "light dark"} in found.of("meta")
    assert "@media (prefers-color-scheme: dark)" in text
    assert 'dir="auto"' in text, "a name in a script from right to left keeps its place"


@each_page
def test_page_fits_a_narrow_screen(page: Path) -> None:
    text = page.read_text("utf-8")
    found = Page(text)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in found.of("meta")
    widths = [int(table["width"]) for table in found.of("table") if table.get("width", "").isdigit()]
    assert all(width <= 600 for width in widths)
    assert "max-width: 100%" in text or "max-width: 560px" in text


def luminance(color: str) -> float:
    """WCAG 2.2, relative luminance of `#rrggbb`."""
    parts = [int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("page", "ground", "inks"),
    [
        ("samples/newsletter/message.html", "#ffffff", ["#33261d", "#6b5a4d", "#8a3b12"]),
        ("samples/newsletter/message.html", "#8a3b12", ["#ffffff", "#ffe9d6"]),
        ("samples/newsletter/message.html", "#fbeadb", ["#33261d"]),
        ("samples/newsletter/message.html", "#2a221d", ["#f3e9df", "#c9b8a8", "#f2a66f"]),
        ("samples/newsletter/message.html", "#3b2a1e", ["#f3e9df"]),
        ("templates/newsletter/message.html", "#ffffff", ["#1d2b28", "#566561", "#17604d"]),
        ("templates/newsletter/message.html", "#17604d", ["#ffffff"]),
        ("templates/newsletter/message.html", "#1b2629", ["#e6f0ee", "#a9bcb8", "#7fd1b9"]),
        ("samples/invoice/bill.html", "#14191d", ["#e8eef2"]),
        ("samples/invoice/bill.html", "#ffffff", ["#1f2a33"]),
    ],
)
def test_page_has_contrast_in_light_and_dark(page: str, ground: str, inks: list[str]) -> None:
    text = (ROOT / page).read_text("utf-8")
    for ink in inks:
        assert ink in text
        assert ground in text
        assert contrast(ink, ground) >= 4.5, (ink, ground)
