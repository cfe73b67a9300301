"""`[suppressions]`: which list holds, what of it, and what the user says for all campaigns."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkmail.model.errors import ConfigError
from bulkmail.model.quota import DAY
from bulkmail.model.suppression import ALL_REASONS, SoftRule, SuppressionReason, SuppressionRules
from bulkmail.settings.settings import load
from bulkmail.settings.suppressions import SuppressionSettings, load_suppressions, user_file
from tests.settings.conftest import SOUND, MakeShop


def write_user_file(state_folder: Path, text: str) -> Path:
    path = state_folder / "config" / "bulkmail" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def refusal(toml: str, make_shop: MakeShop) -> str:
    make_shop(SOUND + toml)
    with pytest.raises(ConfigError) as caught:
        load("shop")
    return f"{caught.value} {caught.value.hint}"


def test_without_settings_the_list_of_the_state_folder_holds(shop: Path, state_folder: Path) -> None:
    settings = load("shop").suppressions
    assert settings.path() == state_folder / "suppressions.db"
    assert settings.apply == ALL_REASONS and settings.rules == SuppressionRules()
    assert load_suppressions() == SuppressionSettings()


def test_campaign_says_which_list_and_what_of_it(make_shop: MakeShop, tmp_path: Path) -> None:
    make_shop(
        SOUND + '[suppressions]\nfile = "client.db"\napply = ["hard", "spam_complaint"]\nhard = 2\n'
        'soft = "5 in 30d"\nunsigned = "ignore"\n'
    )
    settings = load("shop").suppressions
    assert settings.path() == tmp_path / "shop" / "client.db"
    assert settings.apply == {SuppressionReason.HARD, SuppressionReason.SPAM_COMPLAINT}
    assert settings.rules == SuppressionRules(2, SoftRule(5, 30 * DAY, None), counts_unproved=False)


def test_campaign_comes_before_the_environment_and_that_before_the_user(
    make_shop: MakeShop, tmp_path: Path, state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_user_file(state_folder, '[suppressions]\nfile = "mine.db"\nhard = 3\nsoft = "never"\n')
    assert load_suppressions().path() == state_folder / "config" / "bulkmail" / "mine.db"
    monkeypatch.setenv("BULKMAIL_SUPPRESSIONS", str(tmp_path / "environ.db"))
    assert load_suppressions().path() == tmp_path / "environ.db"
    make_shop(SOUND + '[suppressions]\nfile = "client.db"\nhard = 1\n')
    settings = load("shop").suppressions
    assert settings.path() == tmp_path / "shop" / "client.db"
    assert settings.rules == SuppressionRules(1, None)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('apply = ["hart"]', 'campaign.toml:9: apply: "hart" is not a reason'),
        ('apply = "hard"', "expected a list in square brackets"),
        ('soft = "often"', 'write "3 in 60d, until 180d"'),
        ("hard = -1", "is no number of bounces"),
        ('unsigned = "hard"', 'write unsigned = "soft"'),
        ('applies = ["hard"]', 'has no key "applies"'),
        ("[serve]\nkeys = []", "serve"),
    ],
)
def test_fault_is_reported_with_its_line_and_what_to_write(make_shop: MakeShop, toml: str, said: str) -> None:
    assert said in refusal(f"[suppressions]\n{toml}\n", make_shop)


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ('list_id = "News <news.shop.example>"', "list_id"),
        ('unsubscribe = { mailto = "u@shop.example", key_env = "KEY" }', "an unsubscribe link"),
        ('headers = { List-Unsubscribe = "<https://shop.example/u>" }', "list headers"),
    ],
)
def test_list_mail_must_apply_unsubscribes(make_shop: MakeShop, message: str, what: str) -> None:
    toml = SOUND + f'{message}\n[suppressions]\napply = ["hard"]\n'
    make_shop(toml)
    with pytest.raises(ConfigError) as caught:
        load("shop")
    assert f"the message has {what}" in str(caught.value) and 'add "unsubscribe"' in caught.value.hint


def test_faults_of_the_user_are_reported_with_those_of_the_campaign(make_shop: MakeShop, state_folder: Path) -> None:
    path = write_user_file(state_folder, "[suppressions]\nhard = 1000\nfiel = 'x'\n[supressions]\n")
    said = refusal('[suppressions]\nsoft = "x"\n', make_shop)
    for place in (f"{path}:2: hard", f"{path}:3:", f"{path}:4:", "campaign.toml:9: soft"):
        assert place in said


def test_user_file_is_where_each_system_keeps_settings(tmp_path: Path) -> None:
    assert user_file({"HOME": "/h"}, platform="linux") == Path("/h/.config/bulkmail/config.toml")
    assert user_file({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, platform="linux") == Path("/x/bulkmail/config.toml")
    assert user_file({"HOME": "/h", "XDG_CONFIG_HOME": "x"}, platform="darwin") == Path(
        "/h/.config/bulkmail/config.toml"
    )
    assert user_file({"USERPROFILE": "/u", "APPDATA": "/a"}, platform="win32") == Path("/a/bulkmail/config.toml")
