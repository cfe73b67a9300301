"""Making and writing campaigns: what a form makes of the files, and what a browser gets to see of hostile ones."""

from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path

import pytest

from bulkmail.cli.init import KINDS
from bulkmail.console.campaign_pages import file_name
from tests.console.asking import Asker

HARM = "<script>alert(1)</script>"


async def campaign_of(console: Asker, name: str = "spring") -> str:
    """The address of a campaign."""
    page = (await console.get("/")).text
    found = re.search(rf'href="(/c/{name}-[0-9a-f]+)"', page)
    assert found, page
    return found[1]


async def test_empty_folder_says_how_to_begin(console: Asker, root: Path) -> None:
    (root / "spring").rename(root.parent / "elsewhere")
    page = await console.get("/")
    assert "There is no campaign here yet" in page.text
    assert 'action="/campaigns"' in page.text


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_campaign_is_made_from_a_template(console: Asker, root: Path, kind: str) -> None:
    made = await console.post("/campaigns", {"name": "My autumn", "from": f"kind:{kind}"})
    assert made.status == 303
    assert (root / "My-autumn" / "campaign.toml").is_file()
    page = await console.get(made.target)
    assert page.status == 200
    assert "The preview appears here" not in page.text
    assert "<iframe sandbox " in page.text


async def test_campaign_is_made_as_a_copy_without_runs(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    (root / "spring" / "runs").mkdir()
    (root / "spring" / "runs" / "x.txt").write_text("x")
    (root / "spring" / "link.txt").symlink_to("/etc/passwd")
    made = await console.post("/campaigns", {"name": "summer", "from": f"copy:{spring.removeprefix('/c/')}"})
    assert made.status == 303
    assert (root / "summer" / "message.html").read_bytes() == (root / "spring" / "message.html").read_bytes()
    assert {"runs", "link.txt"}.isdisjoint(path.name for path in (root / "summer").iterdir())


@pytest.mark.parametrize("name", ["", "..", "../x", "/tmp/x", ".hidden", "a/b", "spring", "x\0", "x" * 81, HARM])
async def test_campaign_with_an_unfit_name_is_not_made(console: Asker, root: Path, name: str) -> None:
    before = sorted(root.parent.rglob("campaign.toml"))
    answer = await console.post("/campaigns", {"name": name, "from": "kind:newsletter"})
    assert answer.status == 400
    assert 'role="alert"' in answer.text
    assert HARM not in answer.text
    assert sorted(root.parent.rglob("campaign.toml")) == before


@pytest.mark.slow
async def test_saving_writes_the_files_and_the_next_page_says_so(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    page = await console.get(spring)
    fields = {"digest": page.field("digest"), "subject": "Summer, {{ name }}", "body-text": "Dear {{ name }}\r\n"}
    saved = await console.post(f"{spring}/save", fields)
    assert saved.status == 303
    assert "Saved." in (await console.get(saved.target)).text
    assert tomllib.loads((root / "spring" / "campaign.toml").read_text())["message"]["subject"] == "Summer, {{ name }}"
    assert (root / "spring" / "message.txt").read_bytes() == b"Dear {{ name }}\n"


async def test_change_on_disk_shows_both_versions(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    digest = (await console.get(spring)).field("digest")
    (root / "spring" / "message.txt").write_text("By a colleague\n")
    answer = await console.post(f"{spring}/save", {"digest": digest, "body-text": "By me"})
    assert answer.status == 409
    assert "By a colleague" in answer.text
    assert "By me" in answer.text
    assert (root / "spring" / "message.txt").read_text() == "By a colleague\n"


@pytest.mark.slow
async def test_of_two_tabs_that_save_at_once_one_is_told(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    digest = (await console.get(spring)).field("digest")
    answers = await asyncio.gather(
        *(console.post(f"{spring}/save", {"digest": digest, "body-text": f"By tab {tab}"}) for tab in range(5))
    )
    assert sorted(answer.status for answer in answers) == [303, 409, 409, 409, 409]
    saved = next(tab for tab, answer in enumerate(answers) if answer.status == 303)
    assert (root / "spring" / "message.txt").read_text() == f"By tab {saved}"


@pytest.mark.slow
async def test_preview_shows_the_draft_and_saves_nothing(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    before = {path: path.read_bytes() for path in (root / "spring").iterdir()}
    fields = {"subject": "Hello {{ city }}", "row": "2", "as": "text", "body-text": "Draft for {{ name }}"}
    part = await console.post(f"{spring}/preview", fields, {"hx-request": "true"})
    assert part.status == 200
    assert "Hello Odense" in part.text
    assert "<html" not in part.text
    source = re.search(r'src="([^"]+)"', part.text)
    assert source
    message = await console.get(source[1].replace("&amp;", "&"))
    assert "Draft for Bjørn Østergård" in message.text
    assert message.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    whole = await console.post(f"{spring}/preview", fields)
    assert "<html" in whole.text
    assert "Nothing is saved yet" in whole.text
    assert "Draft for {{ name }}" in whole.text
    assert {path: path.read_bytes() for path in (root / "spring").iterdir()} == before


@pytest.mark.slow
async def test_error_of_the_draft_names_the_line_and_keeps_the_last_message(console: Asker) -> None:
    spring = await campaign_of(console)
    good = await console.post(f"{spring}/preview", {"body-text": "Dear {{ name }}"}, {"hx-request": "true"})
    key = good.field("key") if 'name="key" value' in good.text else re.findall(r'value="([\w-]{16})"', good.text)[0]
    fields = {"body-text": "Dear\n\n{{ nmae }}", "key": key}
    bad = await console.post(f"{spring}/preview", fields, {"hx-request": "true"})
    assert "message.txt:3" in bad.text
    assert "name" in bad.text
    assert f"key={key}" in bad.text


@pytest.mark.slow
async def test_template_without_an_end_is_stopped(console: Asker) -> None:
    spring = await campaign_of(console)
    await console.get(spring)  # the worker is warm
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    answer = await console.post(f"{spring}/preview", {"body-text": loop}, {"hx-request": "true"})
    assert "stopped" in answer.text or "range" in answer.text
    again = await console.post(f"{spring}/preview", {"body-text": "Well"}, {"hx-request": "true"})
    assert "<iframe" in again.text


async def test_hostile_message_runs_nothing_in_its_frame(console: Asker) -> None:
    spring = await campaign_of(console)
    body = f'{HARM}<img src="https://tracker.example/1.gif" onerror="alert(1)">'
    part = await console.post(f"{spring}/preview", {"body-html": body, "subject": HARM}, {"hx-request": "true"})
    assert HARM not in part.text
    assert re.findall(r"<iframe ([^>]*)>", part.text)[0].startswith("sandbox title=")
    source = re.search(r'src="([^"]+)"', part.text)
    assert source
    message = await console.get(source[1].replace("&amp;", "&"))
    assert "<script" not in message.text
    assert "tracker.example" not in message.text


@pytest.mark.slow
async def test_list_is_uploaded_under_a_plain_name_and_used(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    digest = (await console.get(spring)).field("digest")
    content = b"email,name,city\ncleo@example.org,Cleo,Bern\n"
    answer = await console.upload(f"{spring}/list", "../../people.csv", content, {"digest": digest})
    assert answer.status == 303
    assert (root / "spring" / "people-2.csv").read_bytes() == content
    assert tomllib.loads((root / "spring" / "campaign.toml").read_text())["recipients"] == "people-2.csv"
    assert "Cleo" in (await console.get(answer.target)).text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["list.exe", "list", "list.csv.sh"])
async def test_upload_that_is_no_list_is_refused(console: Asker, root: Path, name: str) -> None:
    spring = await campaign_of(console)
    digest = (await console.get(spring)).field("digest")
    before = sorted(path.name for path in (root / "spring").iterdir())
    assert (await console.upload(f"{spring}/list", name, b"x", {"digest": digest})).status == 400
    assert sorted(path.name for path in (root / "spring").iterdir()) == before


@pytest.mark.slow
async def test_attachment_comes_and_goes(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    digest = (await console.get(spring)).field("digest")
    attached = await console.upload(f"{spring}/attachments", f"{HARM}.pdf", b"%PDF", {"digest": digest})
    page = await console.get(attached.target)
    names = tomllib.loads((root / "spring" / "campaign.toml").read_text())["message"]["attachments"]
    assert len(names) == 1
    assert (root / "spring" / names[0]).read_bytes() == b"%PDF"
    await console.post(f"{spring}/detach", {"digest": page.field("digest"), "remove": names[0]})
    assert not tomllib.loads((root / "spring" / "campaign.toml").read_text())["message"]["attachments"]


@pytest.mark.slow
async def test_attachment_that_is_too_large_leaves_nothing(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    digest = (await console.get(spring)).field("digest")
    answer = await console.upload(f"{spring}/attachments", "big.bin", bytes(26_000_000), {"digest": digest})
    assert answer.status == 413
    assert sorted(path.name for path in (root / "spring").iterdir()) == [
        "campaign.toml", "message.html", "message.txt", "people.csv",
    ]  # fmt: skip


async def test_settings_are_edited_as_a_text(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    page = await console.get(f"{spring}/settings")
    text = (root / "spring" / "campaign.toml").read_text()
    bad = await console.post(f"{spring}/settings", {"digest": page.field("digest"), "settings": "[message\n"})
    assert bad.status == 400
    assert "campaign.toml:1" in bad.text
    evil = text + '\n[notify]\ncommand = ["id"]\n'
    refused = await console.post(f"{spring}/settings", {"digest": page.field("digest"), "settings": evil})
    assert refused.status == 400
    assert (root / "spring" / "campaign.toml").read_text() == text
    good = text.replace("spring is here", "summer is here")
    assert (await console.post(f"{spring}/settings", {"digest": page.field("digest"), "settings": good})).status == 303
    assert (root / "spring" / "campaign.toml").read_text() == good


async def test_settings_that_cannot_be_read_lead_to_the_text(console: Asker, root: Path) -> None:
    spring = await campaign_of(console)
    (root / "spring" / "campaign.toml").write_text(f"[message\n# {HARM}")
    page = await console.get(spring)
    assert page.status == 200
    assert "Correct campaign.toml" in page.text
    assert HARM not in (await console.get(f"{spring}/settings")).text


async def test_what_is_outside_the_folders_has_no_address(console: Asker, root: Path) -> None:
    outside = root.parent / "outside"
    (root / "spring").rename(outside)
    (root / "linked").symlink_to(outside)
    assert "linked" not in (await console.get("/")).text
    for path in ("/c/..", "/c/%2e%2e", "/c/../../etc/passwd", "/r/x", "/c/spring", "/j/x", "/static/x/../app.py"):
        assert (await console.get(path)).status == 404


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("../../etc/passwd", "passwd"), ("C:\\x\\menu.pdf", "menu.pdf"), (".bashrc", "bashrc"), ("", "file"),
        ("a\0b\n.csv", "a_b_.csv"), ("x" * 300 + ".csv", "x" * 80 + ".csv"), ("menü 1.pdf", "menü 1.pdf"),
        ("-rf", "rf"),
    ],
)  # fmt: skip
def test_name_of_an_upload_is_only_a_label(label: str, name: str) -> None:
    assert re.sub(r"_+", "_", file_name(label)) == name
