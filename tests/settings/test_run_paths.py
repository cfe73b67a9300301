"""Where runs are kept, and which one is meant."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkmail.model.errors import ConfigError
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.runs import LONGEST_STEM, file_stem, find_inbox, find_run, run_path
from bulkmail.settings.settings import Settings, load
from tests.settings.conftest import SOUND, MakeShop

NOON = time.mktime((2026, 3, 1, 12, 0, 0, 0, 0, -1))


def by_flags(**more: object) -> Settings:
    """A campaign given by flags alone."""
    given: dict[str, object] = {"sender": "a@b.example", "subject": "Hi", "text": "shop/message.txt", **more}
    return load(None, Overrides(**given))  # type: ignore[arg-type]


def touch_run(path: str, *, at: float, log_at: float | None = None) -> Path:
    """An outbox, and perhaps its write-ahead log, written at a time."""
    run = Path(path)
    run.parent.mkdir(parents=True, exist_ok=True)
    run.touch()
    os.utime(run, (at, at))
    if log_at is not None:
        log = run.with_name(run.name + "-wal")
        log.touch()
        os.utime(log, (log_at, log_at))
    return run


@pytest.mark.parametrize(("rehearsal", "name"), [(False, "shop.outbox"), (True, "shop.rehearsal.outbox")])
def test_run_of_a_campaign_is_in_its_folder(shop: Path, rehearsal: bool, name: str) -> None:
    assert run_path(load("shop"), rehearsal) == Path("shop/runs") / name


def test_run_of_a_campaign_is_called_by_its_name(make_shop: MakeShop) -> None:
    make_shop(f'name = "Spring: news & more.v2"\n{SOUND}')
    assert run_path(load("shop"), rehearsal=False) == Path("shop/runs/Spring-news-more-v2.outbox")


def test_run_by_flags_is_called_by_list_and_message(shop: Path) -> None:
    settings = by_flags(recipients="shop/people.csv")
    digits = settings.campaign.fingerprint[:8]
    assert run_path(settings, rehearsal=False) == Path(f"runs/people-{digits}.outbox")
    assert run_path(settings, rehearsal=True) == Path(f"runs/people-{digits}.rehearsal.outbox")


def test_run_by_flags_from_standard_input_says_so(shop: Path) -> None:
    settings = by_flags(recipients="-")
    assert run_path(settings, rehearsal=False).name.startswith("stdin-")


def test_run_to_one_address_is_always_a_fresh_one(shop: Path) -> None:
    settings = by_flags(to=("ann@example.com",))
    first = run_path(settings, rehearsal=False, now=NOON)
    assert first == Path("runs/to-20260301-120000.outbox")
    touch_run(str(first), at=NOON)
    second = run_path(settings, rehearsal=False, now=NOON)
    assert second == Path("runs/to-20260301-120000-2.outbox")
    touch_run(str(second), at=NOON)
    assert run_path(settings, rehearsal=False, now=NOON) == Path("runs/to-20260301-120000-3.outbox")


def test_run_of_a_campaign_to_one_address_leaves_the_others_alone(shop: Path) -> None:
    settings = load("shop", Overrides(to=("ann@example.com",)))
    assert run_path(settings, True, now=NOON) == Path("shop/runs/shop-to-20260301-120000.rehearsal.outbox")


def test_fresh_run_has_the_date_of_today_by_default(shop: Path) -> None:
    before = time.strftime("to-%Y%m%d")
    name = run_path(by_flags(to=("ann@example.com",)), rehearsal=False).name
    assert name.startswith((before, time.strftime("to-%Y%m%d")))


@pytest.mark.slow
@settings(deadline=None)  # a busy machine is no fault
@given(st.text(max_size=200))
def test_file_stem_is_one_plain_part_of_a_path(name: str) -> None:
    stem = file_stem(name)
    assert stem
    assert len(stem.encode("utf-8", "surrogatepass")) <= LONGEST_STEM
    assert not set(stem) & set('/\\.:*?"<>|\0\n ')
    assert not stem.startswith("-")


@pytest.mark.parametrize("campaign", ["shop", "shop/campaign.toml"])
def test_find_run_takes_the_latest_of_a_campaign(shop: Path, campaign: str) -> None:
    touch_run("shop/runs/shop.outbox", at=100)
    rehearsal = touch_run("shop/runs/shop.rehearsal.outbox", at=200)
    touch_run("shop/runs/shop-autumn.outbox", at=300)
    touch_run("shop/runs/shop.1.outbox", at=400)
    touch_run("shop/runs/shop.next.outbox", at=500)
    assert find_run(campaign) == rehearsal
    latest = touch_run("shop/runs/shop-to-20260301-120000-2.outbox", at=250)
    assert find_run(campaign) == latest


def test_find_run_passes_over_rehearsals_on_request(shop: Path) -> None:
    real = touch_run("shop/runs/shop.outbox", at=100)
    rehearsal = touch_run("shop/runs/shop.rehearsal.outbox", at=200)
    assert find_run("shop", rehearsals=False) == real
    assert find_run(str(rehearsal), rehearsals=False) == rehearsal


def test_find_run_takes_one_that_is_being_written_into_its_log(shop: Path) -> None:
    running = touch_run("shop/runs/shop.outbox", at=100, log_at=300)
    touch_run("shop/runs/shop.rehearsal.outbox", at=200)
    assert find_run("shop") == running


def test_find_run_takes_an_outbox_by_any_name(shop: Path) -> None:
    run = touch_run("elsewhere/mine.sqlite", at=100)
    assert find_run("elsewhere/mine.sqlite") == run


@pytest.mark.parametrize("argument", [".", "runs"])
def test_find_run_takes_the_latest_here_where_no_campaign_is(shop: Path, argument: str) -> None:
    touch_run("runs/people-12345678.outbox", at=100)
    latest = touch_run("runs/members-12345678.outbox", at=200)
    assert find_run(argument) == latest


def test_find_run_knows_a_campaign_that_can_no_longer_be_loaded(make_shop: MakeShop) -> None:
    make_shop('name = "Spring  news"\nsubject = 5\n')
    run = touch_run("shop/runs/Spring-news.outbox", at=100)
    assert find_run("shop") == run
    Path("shop/campaign.toml").write_text("name = \n")
    run = touch_run("shop/runs/shop.outbox", at=50)
    assert find_run("shop") == run


def test_find_run_reports_campaigns_of_one_folder_apart(shop: Path) -> None:
    Path("shop/autumn.toml").write_text(SOUND)
    touch_run("shop/runs/shop.outbox", at=200)
    autumn = touch_run("shop/runs/autumn.outbox", at=100)
    assert find_run("shop/autumn.toml") == autumn


@pytest.mark.parametrize(
    ("argument", "rehearsals", "message", "hint"),
    [
        (
            "shop",
            True,
            "shop: has no run yet: there is no shop.outbox or shop.rehearsal.outbox in shop/runs",
            "bulkmail send shop",
        ),
        ("shop", False, "shop: has no run yet: there is no shop.outbox in shop/runs", "bulkmail send shop"),
        (".", True, ".: has no run yet: there is no *.outbox in runs", "bulkmail send ."),
        (
            "shp",
            True,
            "shp: there is no such run: no outbox and no campaign by that name",
            "name an outbox file, or the folder of a campaign",
        ),
    ],
)
def test_find_run_says_what_it_looked_for(shop: Path, argument: str, rehearsals: bool, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_run(argument, rehearsals=rehearsals)
    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_find_run_names_the_latest_here_when_nothing_is_called_so(shop: Path) -> None:
    touch_run("runs/people-12345678.outbox", at=100)
    with pytest.raises(ConfigError) as caught:
        find_run("shp")
    assert caught.value.hint == "the latest here is runs/people-12345678.outbox"


def make_maildir(path: str, *, at: float) -> Path:
    """An empty Maildir that was last written to at a time."""
    maildir = Path(path)
    for name in ("tmp", "new", "cur"):
        (maildir / name).mkdir(parents=True)
    os.utime(maildir / "new", (at, at))
    return maildir


def test_find_inbox_takes_the_latest_of_a_campaign(shop: Path) -> None:
    make_maildir("shop/runs/shop.inbox", at=100)
    make_maildir("shop/runs/autumn.inbox", at=300)
    latest = make_maildir("shop/runs/shop-to-20260301-120000.inbox", at=200)
    assert find_inbox("shop") == latest


def test_find_inbox_takes_a_mail_folder_itself(shop: Path) -> None:
    maildir = make_maildir("elsewhere/kept", at=100)
    assert find_inbox("elsewhere/kept") == maildir


def test_find_inbox_takes_the_one_beside_an_outbox(shop: Path) -> None:
    maildir = make_maildir("elsewhere/mine.inbox", at=100)
    make_maildir("elsewhere/yours.inbox", at=200)
    touch_run("elsewhere/mine.rehearsal.outbox", at=100)
    assert find_inbox("elsewhere/mine.rehearsal.outbox") == maildir


@pytest.mark.parametrize(
    ("argument", "message", "hint"),
    [
        (
            "shop",
            "shop: has no mail: there is no mail folder in shop/runs",
            'bulkmail send shop rehearses a campaign whose relay is "sandbox:"',
        ),
        ("shp", "shp: there is no such mail folder or campaign", "bulkmail inbox FOLDER"),
    ],
)
def test_find_inbox_says_what_it_looked_for(shop: Path, argument: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_inbox(argument)
    assert (str(caught.value), caught.value.hint) == (message, hint)
