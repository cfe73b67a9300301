"""The exact words for the mistakes that people make in a campaign."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bulkmail.model.errors import ConfigError
from bulkmail.settings.overrides import Overrides
from bulkmail.settings.settings import load

SENDER = 'from = "Corner Shop <hello@shop.example>"\n'
MESSAGE = f'[message]\n{SENDER}subject = "Hello"\n'
HEAD = 'relay = "sandbox:"\nrecipients = "people.csv"\n'
SOUND = f'{HEAD}{MESSAGE}text = "message.txt"\n'
LINES = len(SOUND.splitlines())


def refusal(campaign: str | None, overrides: Overrides = Overrides()) -> tuple[str, str]:  # noqa: B008
    """What `load` says, and its hint."""
    with pytest.raises(ConfigError) as caught:
        load(campaign, overrides)
    return str(caught.value), caught.value.hint


@pytest.mark.parametrize(
    ("toml", "message", "hint"),
    [
        pytest.param(
            f'nme = "x"\n{SOUND}',
            'shop/campaign.toml:1: this file has no key "nme"',
            'did you mean "name"?',
            id="unknown-key",
        ),
        pytest.param(
            SOUND.replace("subject", "Subject"),
            'shop/campaign.toml:5: [message] has no key "Subject"',
            'did you mean "subject"?',
            id="key-in-capitals",
        ),
        pytest.param(
            f'subject = "x"\n{SOUND}',
            'shop/campaign.toml:1: this file has no key "subject"',
            "subject belongs into [message]",
            id="key-above-its-table",
        ),
        pytest.param(
            f'{SOUND}[sending]\nname = "x"\n',
            f'shop/campaign.toml:{LINES + 2}: [sending] has no key "name"',
            "name belongs above the first [table]",
            id="key-below-its-table",
        ),
        pytest.param(
            f"{SOUND}[sending]\nzzz = 1\n",
            f'shop/campaign.toml:{LINES + 2}: [sending] has no key "zzz"',
            "known are rate, burst, connections, retry, max_attempts, max_age, wait, patience, messages_per_session, "
            "session_age, durability, processes, quota, window, start, ramp, canary, send_at, timezone",
            id="key-like-no-other",
        ),
        pytest.param(
            f'{SOUND}attachments = [{{ file = "message.txt", nam = "x" }}]\n',
            f'shop/campaign.toml:{LINES + 1}: [message.attachments] has no key "nam"',
            'did you mean "name"?',
            id="unknown-key-of-an-attachment",
        ),
        pytest.param(
            SOUND.replace('"people.csv"', '{ file = "people.csv", address = "{{ a }}", address_column = "b" }'),
            'shop/campaign.toml:2: address = "{{ a }}": address_column names the address, too',
            "keep one of them",
            id="address-and-its-column",
        ),
        pytest.param(
            SOUND.replace('"people.csv"', '{ file = "people.csv", address = " " }'),
            'shop/campaign.toml:2: address = "": is empty',
            'write address = "{{ login }}@shop.example", or leave it out',
            id="address-empty",
        ),
        pytest.param(
            SOUND.replace('"people.csv"', '{ file = "people.csv", address = "ann" }'),
            "shop/campaign.toml:2: address = \"ann\": has 'ann', which has no @",
            'write an address such as "{{ login }}@shop.example"',
            id="address-without-at",
        ),
        pytest.param(
            SOUND.replace('"Hello"', "12"),
            "shop/campaign.toml:5: subject = 12: expected a text in quotes",
            'write subject = "12"',
            id="number-for-text",
        ),
        pytest.param(
            SOUND.replace('"Hello"', "Hello"),
            "shop/campaign.toml:5: not valid TOML at column 11: invalid value",
            'a text stands in quotes: name = "Spring"',
            id="text-without-quotes",
        ),
        pytest.param(
            SOUND.replace('"Hello"', '"Hello'),
            "shop/campaign.toml:5: not valid TOML at column 17: illegal character '\\n'",
            "the closing quote is missing",
            id="quote-not-closed",
        ),
        pytest.param(
            SOUND + 'subject = "again"\n# end\n',
            f"shop/campaign.toml:{LINES + 1}: not valid TOML at column 18: cannot overwrite a value",
            "the same key or table stands there twice; keep one of them",
            id="key-twice",
        ),
        pytest.param(
            SOUND + 'html = "C:\\new\\q.html"\n',
            f"shop/campaign.toml:{LINES + 1}: not valid TOML at column 17: unescaped '\\' in a string",
            "write \\\\ for a backslash, or put the text in single quotes",
            id="windows-path",
        ),
        pytest.param(
            SOUND + "and more",
            f"shop/campaign.toml:{LINES + 1}: not valid TOML at column 5: expected '=' after a key in a key/value pair",
            'a line is: key = "value", or [table], or begins with #',
            id="prose",
        ),
        pytest.param(
            f'{SOUND}[sending]\nburst = "5"\nrate = "1/s"\n',
            f'shop/campaign.toml:{LINES + 2}: burst = "5": expected a whole number without quotes',
            "",
            id="text-for-number",
        ),
        pytest.param(
            SOUND.replace('"people.csv"', '{ file = "people.csv", allow_duplicates = "yes" }'),
            'shop/campaign.toml:2: allow_duplicates = "yes": expected true or false, without quotes',
            "",
            id="text-for-bool",
        ),
        pytest.param(
            f'{SOUND}attachments = "message.txt"\n',
            f'shop/campaign.toml:{LINES + 1}: attachments = "message.txt": expected a list in square brackets',
            "",
            id="text-for-list",
        ),
        pytest.param(
            f"{SOUND}attachments = [5]\n",
            f"shop/campaign.toml:{LINES + 1}: attachments = 5: expected a file name in quotes or a table",
            "",
            id="number-for-attachment",
        ),
        pytest.param(
            SOUND.replace('"people.csv"', "['people.csv']"),
            "shop/campaign.toml:2: recipients: expected a file name in quotes or a table",
            "",
            id="list-for-recipients",
        ),
        pytest.param(
            SOUND.replace('"message.txt"', "5"),
            'shop/campaign.toml:6: text = 5: expected a file name in quotes, a text of several lines in """ or '
            '{ inline = "…" }',
            "",
            id="number-for-message",
        ),
        pytest.param(
            SOUND.replace('"message.txt"', "{ fil = 'message.txt' }"),
            'shop/campaign.toml:6: [message.text] has no key "fil"',
            'did you mean "file"?',
            id="unknown-key-of-a-message",
        ),
        pytest.param(
            SOUND.replace('"message.txt"', "{ file = 'message.txt', inline = 'x' }"),
            "shop/campaign.toml:6: text: needs either file or inline",
            'write text = "message.txt"',
            id="message-in-two-places",
        ),
        pytest.param(
            SOUND.replace('"people.csv"', '"peple.csv"'),
            'shop/campaign.toml:2: recipients = "peple.csv": there is no such file in shop',
            'did you mean "people.csv"?',
            id="list-missing",
        ),
        pytest.param(
            SOUND.replace('"message.txt"', '"leter.txt"'),
            'shop/campaign.toml:6: text = "leter.txt": there is no such file in shop',
            'did you mean "message.txt"?',
            id="message-missing",
        ),
        pytest.param(
            SOUND.replace('"message.txt"', '"Dear friends, spring is here"'),
            'shop/campaign.toml:6: text = "Dear friends, spring is here": there is no such file in shop',
            'if this is the message itself, write it as { inline = "…" } or put it between """ on lines of its own',
            id="message-in-place-of-its-file",
        ),
        pytest.param(
            SOUND.replace('"message.txt"', '"."'),
            'shop/campaign.toml:6: text = ".": that is a folder',
            "name a file",
            id="message-is-a-folder",
        ),
        pytest.param(
            f'{SOUND}attachments = ["menu.pdf"]\n',
            f'shop/campaign.toml:{LINES + 1}: attachments = "menu.pdf": there is no such file in shop',
            "",
            id="attachment-missing",
        ),
        pytest.param(
            f'{SOUND}attachments = [{{ name = "x.pdf" }}]\n',
            f"shop/campaign.toml:{LINES + 1}: attachments: an attachment names no file",
            'write { file = "menu.pdf" }',
            id="attachment-without-file",
        ),
        pytest.param(
            f'{SOUND}attachments = [{{ file = "message.txt", name = "../x" }}]\n',
            f'shop/campaign.toml:{LINES + 1}: attachments = "message.txt": its name "../x" is not a file name',
            'write name = "menu.pdf"',
            id="attachment-name-is-a-path",
        ),
        pytest.param(
            f'{SOUND}attachments = [{{ file = "message.txt", type = "pdf" }}]\n',
            f'shop/campaign.toml:{LINES + 1}: type = "pdf": is not a content type',
            'write type = "application/pdf"',
            id="attachment-type",
        ),
        pytest.param(
            SOUND.replace('"people.csv"', '{ file = "people.csv", suppress = ["stop.txt"] }'),
            'shop/campaign.toml:2: suppress = "stop.txt": there is no such file in shop',
            "",
            id="stop-list-missing",
        ),
        pytest.param(
            SOUND.replace('"people.csv"', '{ file = "people.csv", encoding = "utf9" }'),
            'shop/campaign.toml:2: encoding = "utf9": is not an encoding',
            "write utf-8, cp1252, iso-8859-15 or utf-16",
            id="encoding",
        ),
        pytest.param(
            SOUND.replace('"people.csv"', """{ file = "people.csv", where = "age >" }"""),
            "shop/campaign.toml:2: where = \"age >\": cannot be read: unexpected 'end of template'",
            "write for example country == 'AT' and age|int > 17",
            id="where",
        ),
        pytest.param(
            SOUND.replace('"people.csv"', """{ file = "people.csv", where = "age age" }"""),
            'shop/campaign.toml:2: where = "age age": cannot be read: there is something after its end',
            "write for example country == 'AT' and age|int > 17",
            id="where-with-two-expressions",
        ),
        pytest.param(
            SOUND.replace('"people.csv"', f"""{{ file = "people.csv", where = "{"(" * 5000}" }}"""),
            f'shop/campaign.toml:2: where = "{"(" * 59}…": cannot be read: it is nested too deeply',
            "write for example country == 'AT' and age|int > 17",
            id="where-nested-too-deeply",
        ),
        pytest.param(
            SOUND.replace(SENDER, ""),
            "shop/campaign.toml: [message] does not say who the mail is from",
            'write from = "Corner Shop <hello@shop.example>" below [message]',
            id="no-sender",
        ),
        pytest.param(
            SOUND.replace(SENDER, 'from = " "\n'),
            'shop/campaign.toml:4: from = "": is empty',
            'write from = "Corner Shop <hello@shop.example>"',
            id="empty-sender",
        ),
        pytest.param(
            SOUND.replace("hello@shop.example", "hello"),
            'shop/campaign.toml:4: from = "Corner Shop <hello>": has no @',
            'write it as "Corner Shop <hello@shop.example>"',
            id="sender-without-at",
        ),
        pytest.param(
            f'{SOUND}reply_to = "help@"\n',
            f'shop/campaign.toml:{LINES + 1}: reply_to = "help@": has nothing after the @',
            'write it as "Corner Shop <hello@shop.example>"',
            id="reply-to",
        ),
        pytest.param(
            f'{SOUND}reverse_path = "Bounces <b@shop.example>"\n',
            f'shop/campaign.toml:{LINES + 1}: reverse_path = "Bounces <b@shop.example>": is not valid: the email '
            "address contains invalid characters before the @-sign: '<', SPACE",
            'write reverse_path = "bounces@shop.example", or leave it out',
            id="reverse-path",
        ),
        pytest.param(
            SOUND.replace('subject = "Hello"\n', ""),
            "shop/campaign.toml: [message] does not say what the mail is about",
            'write subject = "Spring is here" below [message]',
            id="no-subject",
        ),
        pytest.param(
            SOUND.replace('"Hello"', '"Hello \\u0007"'),
            'shop/campaign.toml:5: subject = "Hello": holds a control character',
            "type it again",
            id="control-character",
        ),
        pytest.param(
            SOUND.replace('text = "message.txt"\n', ""),
            "shop/campaign.toml: [message] does not say where the message is",
            'write text = "message.txt" below [message]',
            id="no-message",
        ),
        pytest.param(
            SOUND.replace('recipients = "people.csv"\n', ""),
            "shop/campaign.toml: does not say whom to write to",
            'write recipients = "people.csv", or add --recipients FILE or --to ADDRESS',
            id="no-list",
        ),
        pytest.param(
            f"{SOUND}[message.headers]\nX-Shop = 5\n",
            f"shop/campaign.toml:{LINES + 2}: X-Shop = 5: expected a text in quotes",
            'write X-Shop = "5"',
            id="header-is-a-number",
        ),
        pytest.param(
            "a = " + "[" * 5000, "shop/campaign.toml: is nested too deeply", "is it the right file?", id="deep"
        ),
        *(
            pytest.param(
                text,
                f"shop/campaign.toml:{line}: a key has more than 20 parts, expected such as sending.rate",
                "is it the right file?",
                id=f"deep-key-{number}",
            )
            for number, (text, line) in enumerate(
                [
                    ("name = 'x'\n" + "a." * 1000 + "a = 1", 2),
                    ("a." * 20_000 + "a = 1", 1),
                    ("[" + "a . " * 1000 + "a]", 1),
                    ('x = """\n\n"""\ny = { ' + '"a".' * 1000 + "a = 1 }", 4),
                ]
            )
        ),
        pytest.param(
            f"name = {'9' * 5000}\n",
            "shop/campaign.toml:1: not valid TOML: exceeds the limit (4300 digits) for integer string conversion: "
            "value has 5000 digits; use sys.set_int_max_str_digits() to increase the limit",
            'a line is: key = "value", or [table], or begins with #',
            id="huge-number",
        ),
        pytest.param(
            b"name = 1\n# caf\xe9\n", "shop/campaign.toml:2: is not UTF-8", "save the file as UTF-8", id="latin-1"
        ),
        pytest.param(
            "a" * 400_000,
            "shop/campaign.toml:1: not valid TOML: expected '=' after a key in a key/value pair",
            'a line is: key = "value", or [table], or begins with #',
            id="long-word",
        ),
        pytest.param(b" " * 1_000_001, "shop/campaign.toml: is longer than 1 MB", "is it the right file?", id="long"),
    ],
)
def test_load_says_what_is_wrong(make_shop, toml: str | bytes, message: str, hint: str) -> None:  # type: ignore[no-untyped-def]
    make_shop(toml)
    assert refusal("shop") == (message, hint)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('variants = { a = 1, b = "x" }', 'b = "x": expected a whole number'),
        ("[suppressions]\napply = [5]", "apply = 5: expected a text in quotes"),
        ("[notify]\ncommand = [5]", "command = 5: expected a text in quotes"),
        ('[[relay]]\nurl = "smtp://h.example"\nrecipients = [5]', "recipients: expected a text in quotes"),
    ],
)
def test_fault_of_one_item_is_the_only_one(make_shop, line: str, said: str) -> None:  # type: ignore[no-untyped-def]
    make_shop(SOUND.replace('relay = "sandbox:"\n', "") + line + "\n")
    message, _ = refusal("shop")
    assert message.startswith("shop/campaign.toml:") and said in message and "things are wrong" not in message


def test_load_says_every_fault_at_once_line_by_line(make_shop) -> None:  # type: ignore[no-untyped-def]
    make_shop(
        'relay = "smpt://mail.example.com"\n'
        'recipients = "peple.csv"\n'
        "[message]\n"
        'from = "Corner Shop"\n'
        'subjet = "Hello"\n'
        'text = "message.txt"\n'
        "[sending]\n"
        'rate = "fast"\n'
        "burst = true\n",
        **{"message.txt": "{% if %}"},
    )
    assert refusal("shop") == (
        "7 things are wrong; nothing was sent:\n"
        "  shop/campaign.toml:1: relay: smpt: is not a kind of relay; "
        'write "smtp://user@mail.example.com:587", "smtps://mail.example.com", "sandbox:", "maildir:DIR" or "null:"\n'
        '  shop/campaign.toml:2: recipients = "peple.csv": there is no such file in shop; did you mean "people.csv"?\n'
        '  shop/campaign.toml:4: from = "Corner Shop": has no @; write it as "Corner Shop <hello@shop.example>"\n'
        '  shop/campaign.toml:5: [message] has no key "subjet"; did you mean "subject"?\n'
        '  shop/campaign.toml:8: rate = "fast": cannot read the rate \'fast\'; write "50/s", "3000/h" or "1 per 2s"\n'
        "  shop/campaign.toml:9: burst = true: expected a whole number without quotes\n"
        "  message.txt:1: Expected an expression, got 'end of statement block'; see https://jinja.palletsprojects.com",
        "fix them, then type: bulkmail check shop",
    )


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        pytest.param(
            b"Dear\nM\xfcller", 'text = "message.txt": line 2 is not UTF-8', "save the file as UTF-8", id="latin-1"
        ),
        pytest.param(b"Dear\0", 'text = "message.txt": holds a NUL character', "is it a text file?", id="nul"),
        pytest.param(
            b" " * 10_000_001, 'text = "message.txt": is longer than 10 MB', "is it the right file?", id="long"
        ),
    ],
)
def test_load_refuses_a_message_that_is_no_text(make_shop, content: bytes, message: str, hint: str) -> None:  # type: ignore[no-untyped-def]
    make_shop(**{"message.txt": content})
    assert refusal("shop") == (f"shop/campaign.toml:7: {message}", hint)


def test_load_refuses_a_pipe_in_a_campaign(shop: Path) -> None:
    (shop / "message.txt").unlink()
    os.mkfifo(shop / "message.txt")
    message = 'shop/campaign.toml:7: text = "message.txt": that is not an ordinary file'
    assert refusal("shop") == (message, "name a file")


def test_load_names_a_file_that_may_not_be_read(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may_read = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "message.txt" and may_read(path, mode))
    message = 'shop/campaign.toml:7: text = "message.txt": the file may not be read'
    assert refusal("shop") == (message, "type: chmod u+r shop/message.txt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("message.txt", 'shop/campaign.toml:7: text = "message.txt": the file cannot be read: Input/output error'),
        ("campaign.toml", "shop/campaign.toml: cannot be read: Input/output error"),
    ],
)
def test_load_names_a_file_that_fails_while_it_is_read(
    shop: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    open_path = Path.open

    def fail(path: Path, *arguments: str) -> object:
        if path.name == name:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return open_path(path, *arguments)

    monkeypatch.setattr(Path, "open", fail)
    assert refusal("shop") == (message, "")


@pytest.mark.parametrize(
    ("campaign", "message", "hint"),
    [
        pytest.param("shp", "shp: there is no such folder or file", 'did you mean "shop"?', id="near-miss"),
        pytest.param(
            "autumn",
            "autumn: there is no such folder or file",
            "for one to start from type: bulkmail init autumn",
            id="nothing-like-it",
        ),
        pytest.param(
            "shop/people.csv",
            "shop/people.csv: that looks like a list; a campaign is a folder with campaign.toml, a .toml file or a "
            "message",
            "name the message, and the list with --recipients shop/people.csv",
            id="list",
        ),
        pytest.param(
            "empty",
            "empty: there is no campaign.toml in this folder",
            "for one to start from type: bulkmail init empty",
            id="empty-folder",
        ),
        pytest.param(
            "full",
            "full: there is no campaign.toml in this folder",
            'write one, or type "bulkmail init DIR" for a new folder and look at its campaign.toml',
            id="other-folder",
        ),
        pytest.param(
            "other",
            "other: there is no campaign.toml in this folder",
            'did you mean "other/spring.toml"?',
            id="file-by-another-name",
        ),
        pytest.param(
            None,
            "which campaign?  There is no campaign.toml in this folder",
            'name its folder, or type "bulkmail init DIR" for one to start from',
            id="none",
        ),
    ],
)
def test_load_says_which_campaign_it_looked_for(shop: Path, campaign: str | None, message: str, hint: str) -> None:
    for name in ("empty", "full/sub", "other"):
        Path(name).mkdir(parents=True)
    Path("other/spring.toml").touch()
    assert refusal(campaign) == (message, hint)


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        pytest.param(
            Overrides(text="shop/message.txt", recipients="shop/people.csv", subject="Hi"),
            "--from is missing: it says who the mail is from",
            'add --from "Corner Shop <hello@shop.example>"',
            id="no-sender",
        ),
        pytest.param(
            Overrides(sender="a@b.example", recipients="shop/people.csv", subject="Hi"),
            "--text is missing: it says where the message is",
            'add --text "message.txt"',
            id="no-message",
        ),
        pytest.param(
            Overrides(sender="a@b.example", text="shop/message.txt", subject="Hi"),
            "--recipients is missing: it says whom to write to",
            "add --recipients FILE or --to ADDRESS",
            id="no-list",
        ),
        pytest.param(
            Overrides(sender="a@b.example", text="Hello!", subject="Hi", to=("ann@example.com",)),
            '--text "Hello!": there is no such file',
            'write the message into a file, or "-" to read it from standard input',
            id="message-in-place-of-its-file",
        ),
        pytest.param(
            Overrides(sender="a@b.example", text="shop/message.txt", subject="Hi", to=("ann@",)),
            '--to "ann@": has nothing after the @',
            'write --to ann@example.com or --to "Ann Li <ann@example.com>"',
            id="bad-address",
        ),
        pytest.param(
            Overrides(sender="a@b.example", text="-", recipients="-", subject="Hi"),
            '--text "-": standard input is already taken by --recipients',
            "name a file for one of them",
            id="standard-input-twice",
        ),
    ],
)
def test_load_says_which_flag_is_wrong(shop: Path, overrides: Overrides, message: str, hint: str) -> None:
    assert refusal(None, overrides) == (message, hint)


@pytest.mark.parametrize(
    ("overrides", "message", "hint"),
    [
        pytest.param(
            Overrides(to=("ann@example.com",), recipients="shop/people.csv"),
            "--to and --recipients: the people are named twice",
            "keep one of them",
            id="two-lists",
        ),
        pytest.param(
            Overrides(to=("ann@example.com",), where="name"),
            "--where: chooses from a list, and --to names the people",
            "keep one of them",
            id="where-without-list",
        ),
        pytest.param(
            Overrides(headers=("X-Shop spring",)),
            '--header "X-Shop spring": is not a header',
            'write --header "X-Shop: spring"',
            id="header",
        ),
        pytest.param(
            Overrides(headers=("X-Shop: a\0b",)),
            '--header X-Shop "a b": holds a control character',
            "type it again",
            id="header-with-nul",
        ),
        pytest.param(
            Overrides(headers=("X\x01Shop: a",)),
            '--header X Shop "a": the header\'s name holds a control character',
            "type it again",
            id="header-name-with-control",
        ),
        pytest.param(
            Overrides(rate="0/s"),
            "--rate \"0/s\": cannot read the rate '0/s'",
            'write "50/s", "3000/h" or "1 per 2s"',
            id="rate",
        ),
        pytest.param(
            Overrides(wait="long"),
            "--wait \"long\": cannot read the duration 'long'",
            'write "10m", "forever" or "0"',
            id="wait",
        ),
        pytest.param(Overrides(limit=0), "--limit 0: must be 1 or more", "write a whole number from 1", id="limit"),
        pytest.param(
            Overrides(connections=0), "--connections 0: out of range", "write a number from 1 to 1000", id="connections"
        ),
        pytest.param(Overrides(attach=("x.pdf",)), '--attach "x.pdf": there is no such file', "", id="attachment"),
        pytest.param(Overrides(suppress=("x.txt",)), '--suppress "x.txt": there is no such file', "", id="stop-list"),
    ],
)
def test_load_says_which_flag_does_not_suit_the_campaign(
    shop: Path, overrides: Overrides, message: str, hint: str
) -> None:
    assert refusal("shop", overrides) == (message, hint)


def test_load_reports_a_fault_in_all_flags_to_be_tried_again(shop: Path) -> None:
    message, hint = refusal(None, Overrides(subject="Hi"))
    assert message.startswith("3 things are wrong; nothing was sent:\n  --recipients is missing")
    assert hint == "fix them, then type the same again"


def test_load_keeps_a_hostile_value_on_one_line(make_shop) -> None:  # type: ignore[no-untyped-def]
    make_shop(SOUND.replace('"message.txt"', '"\\u001b[2J\\u202e' + "x" * 500 + '"'))
    message, _ = refusal("shop")
    assert message == 'shop/campaign.toml:6: text = "[2J ' + "x" * 55 + '…": there is no such file in shop'
