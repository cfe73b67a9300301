"""Several relays in a campaign: what each takes, and every way that they cannot stand beside one another."""

from __future__ import annotations

import pytest

from bulkmail.model.errors import ConfigError
from bulkmail.model.quota import Quota
from bulkmail.model.rate import Rate
from bulkmail.model.relay import Relay
from bulkmail.model.route import Route
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.secrets import find_passwords
from bulkmail.settings.settings import load, load_relay
from tests.settings.conftest import SOUND, MakeShop

MESSAGE = SOUND.replace('relay = "sandbox:"\n', "")
MAIN = '[[relay]]\nname = "main"\nurl = "smtp://ann@mail.example.com"\n'
SPARE = '[[relay]]\nname = "spare"\nurl = "smtps://spare.example.com"\n'


def routes_of(**overrides: object) -> tuple[Route, ...]:
    return load("shop", Overrides(**overrides)).routes  # type: ignore[arg-type]


def refusal(**overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        routes_of(**overrides)
    return f"{caught.value}; {caught.value.hint}"


def test_relays_take_their_own_tables(make_shop: MakeShop) -> None:
    make_shop(
        f'{MESSAGE}[sending]\nconnections = 7\n{MAIN}weight = 3\nrate = "50/s"\nmessages_per_session = 100\n'
        f'session_age = "1m"\nquota = "500/hour, 2000/day"\nrecipients = ["gmail.com", "*.Example.ORG"]\n'
        f'senders = "shop.example"\n'
        f'{SPARE}priority = 2\nconnections = 2\npassword_env = "SPARE"\n'
    )
    main, spare = routes_of()
    assert main == Route(
        Relay.parse("smtp://ann@mail.example.com?connections=7"),
        name="main",
        weight=3,
        rate=Rate.parse("50/s"),
        messages_per_session=100,
        session_age=60.0,
        quota=Quota(500, 2000),
        senders=("shop.example",),
        recipients=("gmail.com", "*.example.org"),
    )
    assert (spare.priority, spare.relay.connections, spare.relay.password_from) == (2, 2, "env:SPARE")


def test_relay_flag_may_be_given_several_times(make_shop: MakeShop) -> None:
    make_shop(MESSAGE + MAIN + SPARE)
    one, other = routes_of(
        relays=(
            "smtp://a.example.com?weight=3&rate=10/s&tls=off&quota=90/day",
            "smtps://b.example.com?priority=2&name=b",
        )
    )
    assert one == Route(
        Relay.parse("smtp://a.example.com?tls=off"), weight=3, rate=Rate.parse("10/s"), quota=Quota(per_day=90)
    )
    assert other == Route(Relay.parse("smtps://b.example.com"), name="b", priority=2)


def test_plain_texts_may_name_several_relays(make_shop: MakeShop) -> None:
    make_shop('relay = ["smtps://a.example.com", "smtps://b.example.com?priority=2"]\n' + MESSAGE)
    assert [(route.label, route.priority) for route in routes_of()] == [
        ("smtps://a.example.com:465", 1),
        ("smtps://b.example.com:465", 2),
    ]


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        pytest.param(
            MAIN + "wieght = 2\n" + SPARE, ['[relay] has no key "wieght"', 'did you mean "weight"?'], id="typo"
        ),
        pytest.param(MAIN + SPARE + "weight = 0\n", ["weight = 0", "write a number from 1 to 1000"], id="weight-0"),
        pytest.param(MAIN + SPARE + "priority = -1\n", ["priority = -1", "from 1 to 1000"], id="priority"),
        pytest.param(MAIN + SPARE + 'rate = "fast"\n', ["rate", "cannot read the rate"], id="rate"),
        pytest.param(MAIN + SPARE + 'quota = "lots"\n', ["quota", "cannot read 'lots' in the quota"], id="quota"),
        pytest.param(MAIN + MAIN, ["two relays are both called 'main'", "give each a name"], id="one-name"),
        pytest.param(
            (MAIN + MAIN).replace('name = "main"\n', ""),
            ["are both called 'smtp://ann@mail.example.com:587'", "give each a name"],
            id="one-url",
        ),
        pytest.param(MAIN + 'recipients = ["a b"]\n' + SPARE, ["'a b' is not a domain"], id="no-domain"),
        pytest.param(MAIN + "recipients = []\n" + SPARE, ["names no domain"], id="empty"),
        pytest.param(
            MAIN + 'recipients = ["gmail.com", "GMAIL.com"]\n' + SPARE, ["'GMAIL.com' is listed twice"], id="twice"
        ),
        pytest.param(
            MAIN + 'recipients = ["gmail.com"]\n' + SPARE + 'senders = ["shop.example"]\n',
            [
                "main and spare overlap: mail from shop.example to gmail.com",
                'senders = ["shop.example"], recipients = ["gmail.com"]',
            ],
            id="overlap",
        ),
        pytest.param(
            MAIN + '[[relay]]\nurl = "sandbox:"\n', ["main and sandbox: are a rehearsal and a real relay"], id="mixed"
        ),
        pytest.param(MAIN + "[[relay]]\nweight = 2\n", ["has no url"], id="no-url"),
    ],
)
def test_relays_that_cannot_be_used_are_reported_with_what_to_do(
    make_shop: MakeShop, toml: str, words: list[str]
) -> None:
    make_shop(MESSAGE + toml)
    said = refusal()
    assert "shop/campaign.toml:" in said
    for some in words:
        assert some in said


def test_fault_of_the_second_relay_names_its_own_line(make_shop: MakeShop) -> None:
    make_shop(MESSAGE + MAIN + SPARE + "weight = 0\n")
    line = (MESSAGE + MAIN + SPARE).count("\n") + 1
    assert refusal().startswith(f"shop/campaign.toml:{line}: weight = 0")


def test_overlap_is_fixed_by_a_relay_that_names_both(make_shop: MakeShop) -> None:
    make_shop(
        MESSAGE + MAIN + 'recipients = ["gmail.com"]\nsenders = ["*", "shop.example"]\n' + SPARE
        + 'senders = ["shop.example"]\n'
    )  # fmt: skip
    assert len(routes_of()) == 2


def test_password_of_a_flag_is_never_repeated(make_shop: MakeShop) -> None:
    make_shop(MESSAGE)
    said = refusal(relays=("smtp://ann:geheim?weight=0@mail.example.com", "smtp://bob:geheim@b.example.com?weight=0"))
    assert "geheim" not in said


def test_password_variable_is_not_shown_to_two_servers() -> None:
    routes = [Route(Relay.parse(f"smtp://ann@{name}.example.com")) for name in "ab"]
    environ = {"BULKMAIL_PASSWORD": "secret"}
    with pytest.raises(ConfigError, match=r"BULKMAIL_PASSWORD cannot be for smtp://ann@a.example.com:587 and"):
        find_passwords(routes, ask=None, environ=environ)
    asked: list[str] = []
    find_passwords(routes, ask=lambda prompt: asked.append(prompt) or "typed", environ=environ)
    assert len(asked) == 2
    mixed = [Route(Relay.parse("smtp://ann@a.example.com")), Route(Relay.parse("smtp://b.example.com"))]
    first, second = find_passwords(mixed, ask=None, environ=environ)
    assert first is not None
    assert (first.reveal(), second) == ("secret", None)


def test_one_of_several_relays_can_be_looked_at(make_shop: MakeShop) -> None:
    make_shop(MESSAGE + MAIN + SPARE)
    assert load_relay("shop", name="spare") == Relay.parse("smtps://spare.example.com")
    with pytest.raises(ConfigError, match="has several relays") as caught:
        load_relay("shop")
    assert caught.value.hint == "add --relay NAME; there is main, spare"
    with pytest.raises(ConfigError, match='has no relay "other"'):
        load_relay("shop", name="other")
