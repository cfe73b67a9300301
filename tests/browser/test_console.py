"""The console in a browser: the whole way by pointer, by keyboard and without scripts, and nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bulkmail.cli.init import make_campaign
from bulkmail.model.tally import Status
from bulkmail.outbox.outbox import Outbox
from bulkmail.outbox.outbox_reader import OutboxReader
from bulkmail.outbox.run_info import RunInfo
from tests.browser.conftest import Opened
from tests.console.processes import Console, run_console
from tests.outbox.making import LOST, OK, UNKNOWN
from tests.report.making import fill_outbox

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(120)]

HARM = "<script>document.title = 'harm'</script><img src=x onerror=\"document.title = 'harm'\">"
RIGHT_TO_LEFT = "\u202eשרה כהן‏ أحمد"
LONG = "x" * 300
PAGES = ("", "/check", "/start", "/test", "/relay", "/settings")
RUN_PAGES = ("", "/rows", "/rows/2", "/doubt", "/cancel", "/report")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a campaign whose texts are hostile, and a run of it."""
    root = tmp_path_factory.mktemp("mail")
    make_campaign("newsletter", root / "spring")
    (root / "spring" / "people.csv").write_text(
        f"email,name,city\nann@example.org,{HARM.replace(chr(34), chr(39))},{LONG}\n"
        f"sara@example.org,{RIGHT_TO_LEFT},Graz\n"
    )
    runs = root / "spring" / "runs"
    runs.mkdir()
    with Outbox.create(
        runs / "spring.outbox", campaign=None, info=RunInfo(name="spring", relay=HARM, list_name=LONG)
    ) as outbox:
        fill_outbox(outbox, [OK, UNKNOWN, LOST, None, *[OK] * 40], bad=[HARM, RIGHT_TO_LEFT])
    return root


@pytest.fixture(scope="module")
def console(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with run_console(folder, tmp_path_factory.mktemp("state")) as running:
        yield running


Visit = Callable[..., Opened]


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """Opens a console with its token: `visit(console, width=360, scheme="dark", scripts=True)`."""
    contexts = []

    def open_console(console: Console, *, width: int = 1280, scheme: Any = "light", scripts: bool = True) -> Opened:
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=scripts
        )
        context.set_default_timeout(30_000)  # ms
        contexts.append(context)
        shown = Opened(context.new_page())
        page = shown.page
        page.on("console", lambda message: _note_message(shown, message.text))
        page.on("pageerror", lambda error: shown.surprises.append(f"error: {error}"))
        page.on("dialog", lambda dialog: shown.surprises.append(f"dialog: {dialog.message}"))
        page.on("popup", lambda popup: shown.surprises.append(f"window: {popup.url}"))
        page.on("request", lambda request: _note(shown, request.url, console.address))
        page.goto(f"{console.address}/?token={console.token}")
        page.wait_for_url(f"{console.address}/")
        return shown

    yield open_console
    for context in contexts:
        context.close()


def _note_message(shown: Opened, text: str) -> None:
    if not text.startswith("htmx:"):  # a question that was under way when the page was left
        shown.surprises.append(f"console: {text}")


def _note(shown: Opened, url: str, own: str) -> None:
    if not url.startswith((own, "data:", "about:")):
        shown.surprises.append(f"request: {url}")


def addresses(page: Page, console: Console) -> tuple[str, str]:
    """The pages of the campaign and of its run."""
    page.goto(console.address)
    text = page.content()
    campaign, run = (re.findall(rf'href="(/{kind}/spring-[0-9a-f]+)"', text)[0] for kind in "cr")
    return console.address + campaign, console.address + run


@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1280, "light")])
def test_every_page_fits_is_legible_and_does_nothing_unasked(
    visit: Visit, console: Console, width: int, scheme: str
) -> None:
    shown = visit(console, width=width, scheme=scheme)
    campaign, run = addresses(shown.page, console)
    pages = [console.address + path for path in ("/", "/returns", "/suppressions", "/log")]
    for address in (*pages, *(campaign + path for path in PAGES), *(run + path for path in RUN_PAGES)):
        shown.page.goto(address)
        assert shown.violations() == [], address
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= width, address
        assert shown.page.title() != "harm"
    assert shown.surprises == []


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing in it."""
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(scope="module")
def empty(elsewhere: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console over that."""
    with run_console(elsewhere, tmp_path_factory.mktemp("state")) as running:
        yield running


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_way_from_an_empty_folder_to_a_rehearsal_takes_few_actions(
    visit: Visit, empty: Console, elsewhere: Path, scripts: bool
) -> None:
    """At most 12 actions, and nothing on the way sends for real."""
    shown = visit(empty, width=360, scripts=scripts)  # 1: open the address
    page = shown.page
    page.get_by_label("Name").fill(f"Spring sale {scripts}")  # 2
    page.get_by_role("button", name="Make the campaign").click()  # 3
    page.get_by_label("Subject", exact=True).fill("{{ name }}, the tulips are here")  # 4
    page.get_by_role("button", name="Save").click()  # 5
    page.get_by_role("status").get_by_text("Saved.", exact=True).wait_for()
    page.locator("#preview").get_by_text("Ann Li, the tulips are here").wait_for()
    page.get_by_role("link", name="Check", exact=True).first.click()  # 6
    page.get_by_role("button", name="Check", exact=True).click()  # 7
    page.get_by_text("Ready to send").wait_for()
    page.get_by_role("link", name="Rehearse and send", exact=True).click()  # 8
    page.wait_for_url("**/start")
    assert page.get_by_role("button", name=re.compile("^Send to")).count() == 0
    page.get_by_role("button", name="Rehearse", exact=True).click()  # 9
    _wait_for_run(page)
    page.get_by_text("finished").first.wait_for()
    page.locator("main").get_by_text("100 %").first.wait_for()
    with page.expect_download() as download:
        page.get_by_role("link", name="Report").last.click()  # 10
    assert "Ann Li" in Path(download.value.path()).read_text("utf-8")
    runs = elsewhere / f"Spring-sale-{scripts}" / "runs"
    assert [path.name.partition(".")[2] for path in runs.glob("*.outbox")] == ["rehearsal.outbox"]
    assert shown.surprises == []


def _wait_for_run(page: Page) -> None:
    """Where a command takes long to begin, its own page comes first, and goes on to the run by itself."""
    page.wait_for_url("**/r/*", timeout=60_000)


def test_way_is_gone_by_keyboard_alone(visit: Visit, empty: Console) -> None:
    shown = visit(empty)
    page = shown.page

    def go_to(name: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate(_NAMED, name):
                return
        raise AssertionError(f"{name} is not reached by Tab on {page.url}")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    go_to("Name")
    page.keyboard.type("spring")
    go_to("Make the campaign")
    page.keyboard.press("Enter")
    page.wait_for_url("**/c/**")
    go_to("Subject")
    page.keyboard.press("Control+A")
    page.keyboard.type("Hello {{ name }}")
    page.get_by_text("Hello Ann Li").wait_for()
    go_to("Save")
    page.keyboard.press("Enter")
    page.get_by_text("Saved.", exact=True).wait_for()
    go_to("Rehearse and send…")
    page.keyboard.press("Enter")
    page.wait_for_url("**/start")
    assert page.evaluate("document.activeElement.textContent") == "Rehearse"  # the default
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/[rj]/"))
    _wait_for_run(page)
    page.get_by_text("finished").first.wait_for()
    go_to("Report")
    page.keyboard.press("Enter")
    page.wait_for_url("**/report")
    assert shown.surprises == []


_NAMED = """(name) => { const one = document.activeElement;
  const words = [...(one.labels ?? [])].map((label) => label.textContent).concat(one.textContent, one.ariaLabel ?? "");
  return words.some((text) => text.trim() === name); }"""


def test_draft_is_shown_as_it_is_typed_and_survives_a_closed_tab(visit: Visit, console: Console, folder: Path) -> None:
    shown = visit(console)
    page = shown.page
    campaign, _ = addresses(page, console)
    before = (folder / "spring" / "message.txt").read_bytes()
    page.goto(campaign)
    page.get_by_role("radio", name="Text").check()
    page.get_by_label("Plain text").fill("Dear friend")
    frame = page.frame_locator("#preview iframe")
    frame.get_by_text("Dear friend").wait_for()
    page.get_by_label("Plain text").press("End")
    page.get_by_role("button", name="city", exact=True).click()  # a column
    assert page.get_by_label("Plain text").input_value() == "Dear friend{{ city }}"
    page.get_by_label("Plain text").fill("Dear {{ nmae }}")
    page.get_by_text("message.txt:1").wait_for()
    frame.get_by_text("Dear friend").wait_for()  # the last good message stays
    page.locator("#preview").get_by_role("link", name="Go to message.txt, line 1").click()
    assert page.evaluate("document.activeElement.id") == "body-text"
    assert page.get_by_label("Plain text").input_value() == "Dear {{ nmae }}"  # nothing typed is lost
    page.goto(console.address)
    page.goto(campaign)
    page.get_by_role("button", name="Restore it").click()
    assert page.get_by_label("Plain text").input_value() == "Dear {{ nmae }}"
    assert (folder / "spring" / "message.txt").read_bytes() == before
    assert shown.surprises == []


def test_hostile_message_does_nothing_in_its_frame(visit: Visit, console: Console) -> None:
    shown = visit(console)
    page = shown.page
    campaign, _ = addresses(page, console)
    page.goto(campaign)
    page.get_by_label("HTML", exact=False).first.fill(
        f"<p>Hello</p>{HARM.replace('src=x', 'src=https://tracker.example/x.gif')}<form action=https://evil.example><button>go</button></form>"
        "<img src=https://tracker.example/1.gif><style>@import 'https://evil.example/x.css';</style>"
    )
    page.frame_locator("#preview iframe").get_by_text("go").wait_for()
    page.wait_for_timeout(500)  # what must not happen has time to
    assert page.title() != "harm"
    assert shown.surprises == []


def test_console_in_a_frame_of_another_page_stays_empty(chromium: Browser, console: Console, tmp_path: Path) -> None:
    outside = tmp_path / "evil.html"
    outside.write_text(f'<iframe src="{console.address}/"></iframe>')
    page = chromium.new_page()
    page.goto(outside.as_uri())
    page.wait_for_timeout(500)
    assert "Campaigns" not in page.frames[1].content()
    page.close()


def test_finding_leads_to_its_line(visit: Visit, console: Console, folder: Path) -> None:
    make_campaign("newsletter", folder / "broken")
    (folder / "broken" / "message.txt").write_text("Dear friend,\n\n{{ nmae }}\n")
    shown = visit(console, width=320)
    page = shown.page
    page.get_by_role("link", name="broken", exact=True).click()
    page.get_by_role("link", name="Check", exact=True).first.click()
    page.get_by_role("button", name="Check", exact=True).click()
    page.get_by_role("link", name="Go to message.txt, line 3").click()
    page.wait_for_url("**#body-text")
    page.wait_for_function("document.activeElement.id === 'body-text'")
    assert page.evaluate(_CHOSEN) == "{{ nmae }}"
    shutil.rmtree(folder / "broken")


_CHOSEN = """() => { const one = document.activeElement;
  return one.value.slice(one.selectionStart, one.selectionEnd); }"""


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no-scripts"])
def test_messages_in_doubt_are_decided_one_by_one(visit: Visit, elsewhere: Path, empty: Console, scripts: bool) -> None:
    name = f"doubts-{scripts}".lower()
    make_campaign("newsletter", elsewhere / name)
    file = elsewhere / name / "runs" / f"{name}.outbox"
    file.parent.mkdir()
    with Outbox.create(file, campaign=None, info=RunInfo(name=name)) as outbox:
        fill_outbox(outbox, [LOST, OK, LOST, LOST])
    page = visit(empty, width=360, scripts=scripts).page
    page.get_by_role("link", name="3 in doubt").click()
    page.get_by_label("Count as accepted").check()
    page.get_by_label("Those chosen below").check()
    page.get_by_label("Row 1", exact=True).check()
    page.get_by_label("Row 4", exact=True).check()
    page.get_by_role("button", name="Decide").click()
    page.get_by_text("1 message was sent, but").wait_for()
    assert page.get_by_label("Row 3", exact=True).count() == 1
    page.get_by_label("Count as rejected").check()
    page.get_by_label("All 1").check()
    page.get_by_role("button", name="Decide").click()
    page.wait_for_url(re.compile("/r/[^/]*$"))
    with OutboxReader.open(file) as reader:
        assert reader.tally().by_status == {Status.ACCEPTED: 3, Status.REJECTED: 1}
    shutil.rmtree(elsewhere / name)
