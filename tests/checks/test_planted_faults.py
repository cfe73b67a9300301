"""A mailing with thirty faults: each is found, with row and fix; and the clean samples are clean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bulkmail.checks.catalog import CHECKS
from bulkmail.cli import main

ROOT = Path(__file__).parents[2]

TOML = """
relay = "sandbox:"
[recipients]
file = "people.csv"
suppress = ["stop.txt"]
max_invalid = "20%"
[message]
from = "Shop <shop@gmail.com>"
subject = "{{ subject }}"
text = "message.txt"
html = "message.html"
list_id = "Shop news <news.shop.example>"
reverse_path = "bounces@mailer.example"
variants = ["a", "b"]
attachments = [{ file = "{{ bill }}", optional = true }, "plan.bin", "empty.txt", "invite.ics"]
[[message.dkim]]
domain = "other.example"
selector = "s1"
key_file = "dkim.pem"
[data]
city = "Graz"
"""
LIST = """\
email,name,subject,bill,city,page,internal
ann@example.com,Ann,News,,Wien,https://shop.example/a,1
bob@example.com,,News,,Wien,https://shop.example/b,2
carol@gmial.com,Carol,News,,Wien,https://shop.example/c,3
dave@hotmail.con,Dave,News,,Wien,https://shop.example/d,4
erin@outlook.com,Erin,News,gone.pdf,Wien,https://shop.example/e,5
frank@,Frank,News,,Wien,https://shop.example/f,6
gal@example.com,Gal,,,Wien,https://shop.example/g,7
ANN@example.com,Ann,News,,Wien,https://shop.example/h,8
info@example.com,Sh&#246;p,News,,Wien,https://shop.example/i,9
hal@example.com,Hal,{long},,Wien,https://shop.example/j,10
ivy@example.com,Ivy,Test mail,,Wien,https://shop.example/k,11
jon@example.com,NULL,News,,Wien,https://shop.example/l,12
kim@example.com,{{{{ vorname }}}},News,,Wien,https://shop.example/m,13
leo@example.com,Leo,News,,Wien,http://shop.example/n,14
mia@example.com,Mia,News,,Wien,javascript:alert(1),15
ned@example.com,Ned,News,,   ,https://shop.example/o,16
noreply@example.com,Machine,News,,Wien,https://shop.example/p,17
stopped@example.com,Stop,News,,Wien,https://shop.example/q,18
ola@example.com,*|FNAME|*,News,,Wien,https://shop.example/r,19
""".format(long=("A very long subject " * 8).strip())
TEXT = """Dear {{ name }} from {{ city }},

Lorem ipsum dolor.
{% if city == "Paris" %}{{ arrondissement }}{% endif %}
See http://old.shop.example/ too.<br>
"""
HTML = """<!DOCTYPE html>
<html><head><title>News</title></head><body>
<div><p>Dear {{ name }} from {{ city }}</p>
<b>never closed
<img src="https://shop.example/a.png">
<a href="">empty</a>
<a href="#">hash</a>
<a href="http://localhost:8000/x">mine</a>
<a href="http://shop.example/">plain</a>
<a href="{{ page }}">page</a>
<a href="/offers">relative</a> <i style="background: url('gone.png')"></i>
<script>alert(1)</script>
TODO: prices
%%PRICE%%
</div></i>
<!-- FILLER --></body></html>
"""
KEY = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
"""

# Code, line of the list (0: none), what is said of the place and the fault.
PLANTED = [
    ("bad-row", 7, "people.csv:7: nothing is sent"),
    ("row-does-not-render", 16, "javascript"),
    ("subject-empty", 8, "Subject is empty"),
    ("attachment-missing", 6, "'gone.pdf' is not there"),
    ("unknown-name", 0, "'arrondissement'"),
    ("empty-field", 3, "column name: 'name' is empty in 1 row: line 3"),
    ("empty-field", 17, "column city: 'city' is empty in 1 row: line 17"),
    ("dummy-cell", 13, "column name: 'name' is 'NULL' in 1 row: line 13"),
    ("damaged-cell", 10, "column name: 'name' is 'Sh&#246;p' (see '&#246;') in 1 row: line 10"),
    ("placeholder", 14, "column name: '{{ vorname }}'"),
    ("placeholder", 20, "column name: '*|FNAME|*'"),
    ("placeholder", 0, "message.txt:3: 'Lorem ipsum'"),
    ("placeholder", 0, "message.html:13: 'TODO'"),
    ("placeholder", 0, "message.html:14: '%%PRICE%%'"),
    ("value-hidden", 0, "column city: 'city' is a column of the list and a value of the campaign"),
    ("variants-same", 0, "no template uses {{ variant }}, so the variants a, b are the same"),
    ("mistyped-address", 4, "@gmial.com in 1 row: line 4; did you mean @gmail.com?"),
    ("mistyped-address", 5, "@hotmail.con in 1 row: line 5; did you mean @hotmail.com?"),
    ("subject-test", 12, 'the subject says "test" in 1 row: line 12'),
    ("subject-long", 11, "more than 100 characters (at most 159) in 1 row: line 11"),
    ("html-clipped", 2, "the HTML has up to 1"),
    ("unclosed-tag", 2, "message.html:4: <b> is not closed"),
    ("unclosed-tag", 2, "message.html:15: </i> closes nothing"),
    ("visible-tag", 0, "message.txt:5: recipients see '<br>'"),
    ("image-without-alt", 0, "message.html:5: the picture https://shop.example/a.png"),
    ("image-local", 2, "the picture gone.png is neither"),
    ("link-empty", 0, 'message.html:6: href=""'),
    ("link-empty", 0, 'message.html:7: href="#"'),
    ("link-relative", 0, "message.html:11: the link /offers is relative"),
    ("link-local", 0, "message.html:8: http://localhost:8000/x"),
    ("link-insecure", 0, "message.html:9: http://shop.example/"),
    ("link-insecure", 0, "message.txt:5: http://old.shop.example/"),
    ("link-insecure", 15, "message.html: http://shop.example/n"),
    ("active-content", 0, "message.html:12: a script"),
    ("attachment-too-big", 0, "plan.bin"),
    ("invitation-attached", 0, "'invite.ics' is an invitation (METHOD:REQUEST)"),
    ("attachment-empty", 0, "'empty.txt' has 0 bytes"),
    ("free-sender", 0, "campaign.toml: from: From is at gmail.com"),
    ("one-click-missing", 0, "recipients cannot unsubscribe with one click"),
    ("dkim-not-aligned", 0, "DKIM signs for other.example"),
    ("bounces-not-aligned", 0, "bounces go to mailer.example"),
    ("bounces-without-token", 0, "bounces come back to an address without {bounce}"),
    ("role-address", 10, "a role, not a person"),
    ("role-address", 18, "a machine"),
    ("duplicate-differs", 9, "lines 2, 9 of ann@example.com differ in 'page'; only line 2 is sent"),
    ("duplicate", 9, "1 row repeats an address"),
    ("suppressed", 19, "suppressed, skipped"),
    ("unused-column", 0, "1 column: 'internal'"),
]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BULKMAIL_RELAY", raising=False)
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, text in (("campaign.toml", TOML), ("people.csv", LIST), ("message.txt", TEXT), ("dkim.pem", KEY)):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "message.html").write_text(HTML.replace("FILLER", "x" * 110_000), encoding="utf-8")
    (folder / "stop.txt").write_text("stopped@example.com\n")
    (folder / "plan.bin").write_bytes(b"x" * 8_000_000)
    (folder / "empty.txt").touch()
    (folder / "invite.ics").write_text("BEGIN:VCALENDAR\nMETHOD:REQUEST\nEND:VCALENDAR\n")
    (folder / "dkim.pem").chmod(0o600)
    return folder


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments], prog_name="bulkmail")


@pytest.mark.slow
def test_check_names_every_planted_fault_with_row_and_fix(shop: Path) -> None:
    result = check("shop", "--json")
    reported = json.loads(result.stdout)
    for code, line, words in PLANTED:
        found = [
            each
            for each in reported["findings"]
            if each["code"] == code
            and words in f"{each['where'] or ''}: {each['message']}"
            and (line in each["rows"] if line else True)
        ]
        assert len(found) == 1, (code, words, [each for each in reported["findings"] if each["code"] == code])
        assert found[0]["fix"]
        assert found[0]["why"]
    assert len(PLANTED) >= 30
    assert len(reported["findings"]) == len(PLANTED), "nothing is notified that was not planted"
    assert {code for code, _, _ in PLANTED} >= {check.code for check in CHECKS if not check.is_online} - {
        "no-relay-for-row",
        "many-invalid",  # an error, and so not beside the others
        "made-up-domain",  # through a relay elsewhere only
        "intake-stale",  # by what the suppression list remembers of earlier campaigns
        "subject-missing",  # in message files only
        "ambiguous-column",  # an error
        "suppression-entry",  # an error
        "hidden-row",  # of a workbook
        "grouped-differs",  # in place of duplicate-differs, where rows share a message
        "key-not-served",  # of [serve] in the user's own file
        "cell-format",  # of a workbook
    }
    assert (result.exit_code, reported["ready"]) == (0, True), "warnings do not keep the checks shut"


@pytest.mark.slow
def test_check_reports_it_in_eighty_columns_without_colours_in_a_pipe(shop: Path) -> None:
    result = check("shop")
    assert max(map(len, result.output.splitlines())) <= 80
    assert "\x1b" not in result.output
    severities = [
        line.split(":")[0] for line in result.output.splitlines() if line.startswith(("error:", "warning:", "note:"))
    ]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)


@pytest.mark.slow
def test_strict_refuses_what_only_warnings_speak_against(shop: Path) -> None:
    assert check("shop", "--strict").exit_code == 2
    codes = {check.code for check in CHECKS}
    ignored = [word for code in sorted(codes) for word in ("--ignore", code)]
    result = check("shop", "--strict", *ignored)
    assert result.exit_code == 0
    assert "warning" not in result.output


@pytest.mark.slow
@pytest.mark.parametrize("used", ["town", 'row["town"]'])
def test_name_of_several_columns_is_an_error_where_the_message_uses_it(shop: Path, used: str) -> None:
    (shop / "people.csv").write_text("email,town,town\nann@example.com,Wien,Linz\n")
    (shop / "message.txt").write_text(f"From {{{{ {used} }}}} or {{{{ town_2 }}}}\n")
    flags = ("--recipients", "shop/people.csv", "--from", "a@example.com", "--subject", "Hi", "--relay", "sandbox:")
    refused = check(*flags, "--text", "shop/message.txt")
    assert refused.exit_code == 2
    assert "[ambiguous-column]" in refused.output
    (shop / "message.txt").write_text("From {{ town_2 }}\n")
    assert check(*flags, "--text", "shop/message.txt").exit_code == 0
    assert check(*flags, "--text", "shop/message.txt", "--where", "town == 'Wien'").exit_code == 2


def test_ignore_knows_its_codes(shop: Path) -> None:
    result = check("shop", "--ignore", "emty-field")
    assert result.exit_code == 2
    assert "there is no check 'emty-field'; did you mean 'empty-field'?" in result.stderr


@pytest.mark.slow
def test_send_runs_the_same_gate(shop: Path) -> None:
    refused = CliRunner().invoke(main, ["send", "shop", "--strict", "--progress", "none"])
    assert refused.exit_code == 2
    assert "nothing was sent: " in refused.stderr
    assert "gmial.com" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "campaign",
    ["samples/newsletter", "samples/invoice", "templates/newsletter", "templates/mail-merge", "templates/invoice"],
)
def test_clean_campaigns_are_clean(campaign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BULKMAIL_RELAY", raising=False)
    reported = json.loads(check(str(ROOT / campaign), "--json").stdout)
    assert reported["findings"] == []
    assert reported["ready"]
