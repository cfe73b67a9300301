"""Values that lie: what `check`, `preview` and `send` do with cells that mean something else than they seem to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bulkmail.cli import main


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), prog_name="bulkmail")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("BULKMAIL_RELAY", "BULKMAIL_DEBUG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def campaign(people: str | bytes, text: str, *, name: str = "list.csv", subject: str = "Hi", more: str = "") -> None:
    """A campaign in the current folder."""
    Path("campaign.toml").write_text(
        f'relay = "sandbox:"\n[recipients]\nfile = "{name}"\n{more}\n[message]\n'
        f'from = "Shop <news@gardenshop.net>"\nsubject = "{subject}"\ntext = "message.txt"\n'
    )
    Path("message.txt").write_text(text)
    Path(name).write_bytes(people.encode() if isinstance(people, str) else people)


def findings(*words: str, exit_code: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """What `check` finds, by code."""
    result = run("check", ".", "--json", *words)
    assert exit_code is None or result.exit_code == exit_code, result.output
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(result.stdout)["findings"]:
        found.setdefault(finding["code"], []).append(finding)
    return found


def messages() -> dict[str, str]:
    """What `preview --all` writes: the texts by address."""
    result = run("preview", ".", "--all", "--out", "out")
    assert result.exit_code in (0, 2), result.output
    found = sorted(Path("out").glob("*.txt")) if Path("out").exists() else []
    return {path.stem.partition("-")[2]: path.read_text() for path in found}


def test_decimal_comma_fails_its_row_and_no_other() -> None:
    campaign('email,amount\nann@example.com,1234.50\nbob@example.com,"1.234,50"\n', "{{ amount | float }}")
    (found,) = findings("--strict", exit_code=2)["row-does-not-render"]
    assert found["rows"] == [3]
    assert "amount is '1.234,50'" in found["message"]
    assert messages() == {"ann@example.com": "1234.5\n"}


@pytest.mark.slow
def test_condition_that_cannot_read_a_cell_makes_its_row_invalid() -> None:
    campaign('email,amount\nann@example.com,1234.50\nbob@example.com,"1.234,50"\n', "Hi")
    (found,) = findings("--where", "amount | float > 100")["bad-row"]
    assert "list.csv:3" in found["where"]
    result = run("send", ".", "--where", "amount | float > 100", "--yes", "--progress", "none")
    assert "1 accepted" in result.output
    assert "1 invalid" in result.output


@pytest.mark.parametrize("command", ["check", "send"])
def test_condition_that_makes_no_sense_for_any_row_is_refused(command: str) -> None:
    campaign("email,age\nann@example.com,17\nbob@example.com,18\n", "Hi")
    result = run(command, ".", "--where", "age > 18", *(["--yes"] if command == "send" else []))
    assert result.exit_code == 2
    assert "--where: age is '17', which is text, and cannot be compared with a number" in result.output


@pytest.mark.slow
def test_false_in_a_cell_is_not_true() -> None:
    campaign(
        "email,vip\nann@example.com,TRUE\nbob@example.com,FALSE\ncy@example.com,0\n", "Hi{% if vip %} VIP{% endif %}"
    )
    found = findings()["row-does-not-render"]
    assert [(each["rows"], "vip is" in each["message"]) for each in found] == [([3], True), ([4], True)]
    assert messages() == {"ann@example.com": "Hi VIP\n"}
    (bad, other) = findings("--where", "vip")["bad-row"]
    assert "vip is 'FALSE'" in bad["message"]
    assert "vip is '0'" in other["message"]


@pytest.mark.slow
def test_suppression_list_takes_several_addresses_a_line_and_stars() -> None:
    campaign("email\nann@example.com\ndan@example.com\neve@example.com\nf@example.org\n", "Hi")
    Path("stop.txt").write_text("dan@example.com;eve@example.com\n*@example.org\n")
    result = run("send", ".", "--suppress", "stop.txt", "--strict", "--yes", "--progress", "none")
    assert "1 accepted" in result.output
    assert "3 suppressed" in result.output


@pytest.mark.slow
def test_suppression_list_that_cannot_be_understood_stops_before_anything_is_sent() -> None:
    campaign("email\nann@example.com\neve@example.org\n", "Hi")
    Path("stop.txt").write_text("# do not mail\nexample.org\n")
    (found,) = findings("--suppress", "stop.txt", exit_code=2)["suppression-entry"]
    assert (found["severity"], found["where"]) == ("error", "stop.txt:2")
    assert "write @example.org" in found["message"]
    refused = run("send", ".", "--suppress", "stop.txt", "--yes", "--progress", "none")
    assert refused.exit_code == 2
    assert "stop.txt:2" in refused.output
    assert "accepted" not in refused.output
    ignored = run("send", ".", "--suppress", "stop.txt", "--yes", "--progress", "none", "--ignore", "suppression-entry")
    assert ignored.exit_code == 0
    assert "2 accepted" in ignored.output


def sheet(*rows: str) -> bytes:
    from tests.recipients.test_seen_cells import HEADER, workbook

    return workbook(HEADER + "".join(rows), 14)


def sheet_row(number: int, address: str, cell: str, attributes: str = "") -> str:
    return (
        f'<row r="{number}" {attributes}><c r="A{number}" t="inlineStr"><is><t>{address}</t></is></c>'
        f'<c r="B{number}" {cell}</c></row>'
    )


@pytest.mark.slow
def test_hidden_rows_of_a_sheet_are_found() -> None:
    rows = [
        sheet_row(2, "ann@example.com", "><v>1</v>"),
        sheet_row(3, "bob@example.com", "><v>2</v>", 'hidden="1"'),
        sheet_row(4, "cy@example.com", "><v>3</v>", 'hidden="1"'),
    ]
    campaign(sheet(*rows), "Hi", name="list.xlsx")
    (found,) = findings("--strict", exit_code=2)["hidden-row"]
    assert (found["severity"], found["rows"]) == ("warning", [3, 4])
    assert findings("--where", "x == '2'")["hidden-row"][0]["rows"] == [3]
    assert "hidden-row" not in findings("--where", "x == '1'")


@pytest.mark.slow
def test_booleans_of_a_sheet_are_conditions() -> None:
    rows = [
        sheet_row(2, "ann@example.com", 't="b"><v>1</v>'),
        sheet_row(3, "bob@example.com", 't="b"><v>0</v>'),
    ]
    campaign(sheet(*rows), "{{ x }}{% if x %} yes{% endif %}", name="list.xlsx")
    assert messages() == {"ann@example.com": "TRUE yes\n", "bob@example.com": "FALSE\n"}
    for where, number in (("x", 1), ("not x", 1), ("x or not x", 2)):
        assert json.loads(run("check", ".", "--json", "--where", where).stdout)["recipients"] == number


def test_format_of_the_computer_is_found_where_the_message_uses_it() -> None:
    rows = [sheet_row(2, "ann@example.com", 's="1"><v>46380</v>')]
    campaign(sheet(*rows), "{{ x }}", name="list.xlsx")
    (found,) = findings("--strict", exit_code=2)["cell-format"]
    assert (found["column"], found["rows"]) == ("x", [2])
    assert "is shown in the format for dates of each computer" in found["message"]
    campaign(sheet(*rows), "Hi", name="list.xlsx")
    assert "cell-format" not in findings()


@pytest.mark.slow
def test_numbers_of_json_keep_their_digits() -> None:
    people = '[{"email": "ann@example.com", "price": 19.90, "rate": 1e-07, "items": [{"p": 2.50}]}]'
    text = "{{ price }} {{ rate }} {% for item in items %}{{ item.p }}{% endfor %} {{ price * 2 }}"
    campaign(people, text, name="list.json")
    assert messages() == {"ann@example.com": "19.90 1e-07 2.50 39.8\n"}
    campaign(people.replace("\n", "")[1:-1], text, name="list.jsonl")
    assert messages() == {"ann@example.com": "19.90 1e-07 2.50 39.8\n"}
    result = run("send", ".", "--yes", "--progress", "none", "--report", "report.csv", "--report", "report.json")
    assert "1 accepted" in result.output
    assert ",19.90," in Path("report.csv").read_text()
    assert '"price":19.90' in Path("report.json").read_text()


def test_objects_lists_and_null_are_not_printed_as_python() -> None:
    people = [
        {"email": "ann@example.com", "x": {"$date": "2024"}},
        {"email": "bob@example.com", "x": ["a", "b"]},
        {"email": "cy@example.com", "x": None},
        {"email": "dan@example.com", "x": True},
    ]
    campaign(json.dumps(people), "{{ x }}", name="list.json")
    assert messages() == {"dan@example.com": "TRUE\n"}
    fixes = [found["fix"] for found in findings()["row-does-not-render"]]
    assert "write {{ x['$date'] }}" in fixes
    assert "write {{ x | join(', ') }}" in fixes


def test_space_around_cells_is_taken_off_with_a_notice() -> None:
    people = "email,name,country\nann@example.com,  Ann           ,AT \nbob@example.com,\u200bBob\u00a0,\ufeffAT\n"
    campaign(people, "Dear {{ name }},{% if country == 'AT' %} servus{% endif %}")
    assert messages() == {"ann@example.com": "Dear Ann, servus\n", "bob@example.com": "Dear Bob, servus\n"}
    (notice,) = json.loads(run("check", ".", "--json").stdout)["notices"]
    assert notice == "list.csv:2: spaces around 4 cells taken off ('name' and 'country')"


@pytest.mark.parametrize("flags", [("--keep-space",), ()])
def test_space_around_cells_stays_where_that_is_asked_for(flags: tuple[str, ...]) -> None:
    campaign("email,name\nann@example.com, Ann \n", "[{{ name }}]", more="" if flags else "keep_space = true")
    assert "[ Ann ]" in run("preview", ".", *flags).output


def test_space_around_texts_of_json_is_taken_off() -> None:
    campaign('[{"email": "ann@example.com", "name": " Ann\\n", "n": 1}]', "[{{ name }}{{ n }}]", name="list.json")
    assert messages() == {"ann@example.com": "[Ann1]\n"}
    assert "1 cell" in json.loads(run("check", ".", "--json").stdout)["notices"][0]


def test_order_number_is_no_display_name() -> None:
    campaign("Name,email\n#1001,ann@example.com\nAnn Li,bob@example.com\n", "{{ Name }}")
    assert "To:        ann@example.com\n" in run("preview", ".", "--row", "1").output
    assert "To:        Ann Li <bob@example.com>" in run("preview", ".", "--row", "2").output
    assert "holds no name in 1 row" in json.loads(run("check", ".", "--json").stdout)["notices"][0]


ORDERS = """email,order,item
ann@example.com,1,Tulip
ann@example.com,1,Rose
bob@example.com,2,Lily
Ann@example.com,3,Vase
"""


@pytest.mark.slow
def test_duplicates_that_differ_in_what_the_message_uses_are_found() -> None:
    campaign(ORDERS, "{{ item }}")
    (found,) = findings("--strict", exit_code=2)["duplicate-differs"]
    assert "lines 2, 3, 5 of ann@example.com differ in 'item'; only line 2 is sent" in found["message"]
    assert (found["column"], found["rows"]) == ("item", [3, 5])
    campaign(ORDERS, "Hi {{ email }}")
    assert "duplicate-differs" not in findings()
    assert "duplicate" in findings()


def test_preview_of_all_writes_what_is_sent() -> None:
    campaign(ORDERS, "{{ item }}")
    assert messages() == {"ann@example.com": "Tulip\n", "bob@example.com": "Lily\n"}
    result = run("preview", ".", "--all", "--out", "each", "--allow-duplicates")
    assert "4 messages written" in result.output


DAMAGED = ["MÃ¼ller", "M\ufffdller", "O&#39;Brien", "4.36642E+11", "########", "'01067", "Ã–sterreich", "GroÃŸ", "Â°C"]
LEFT = ["[object Object]", "[First Name]", "<<Name>>", "«First Name»", "%%First Name%%", "{First Name}", "[[name]]"]
DUMMIES = ["N/A", "#N/A", "NULL", "<NA>", "#NUM!"]
FINE = ["Müller", "O'Brien", "d'Arc", "Null", "AT&T", "A & B", "Ångström", "SÃO PAULO", "TÄGLICH", "[1]", "« Bonjour »"]


@pytest.mark.parametrize(
    ("cells", "code"), [(DAMAGED, "damaged-cell"), (LEFT, "placeholder"), (DUMMIES, "dummy-cell")], ids=lambda x: str(x)
)
def test_damaged_cells_are_found(cells: list[str], code: str) -> None:
    rows = "".join(f'p{number}@example.com,"{cell}"\n' for number, cell in enumerate(cells, 2))
    campaign(f"email,name\n{rows}", "Dear {{ name }},")
    found = findings("--strict", exit_code=2)[code]
    assert sorted(line for each in found for line in each["rows"]) >= list(range(2, 2 + min(len(cells), 5)))
    assert {each["column"] for each in found if each["rows"]} == {"name"}


def test_undamaged_cells_are_not_found() -> None:
    campaign("email,name\n" + "".join(f'p{n}@example.com,"{c}"\n' for n, c in enumerate(FINE)), "Dear {{ name }},")
    assert findings("--strict", exit_code=0) == {}


@pytest.mark.parametrize("word", [*LEFT, "MÃ¼ller", "M\ufffdller"])
def test_placeholders_of_other_programs_are_found_in_the_message(word: str) -> None:
    campaign("email\nann@example.com\n", f"Dear {word}, hello.")
    left = {"MÃ¼ller": "Ã¼", "M\ufffdller": "\ufffd"}.get(word, word)
    assert left in findings("--strict", exit_code=2)["placeholder"][0]["message"]


def test_line_feed_in_a_header_is_reported_with_the_fix() -> None:
    campaign('email,name\nann@example.com,"Ann\nLi"\ncy@example.com,"Cy\n"\n', "Hi", subject="For {{ name }}")
    (found,) = findings()["row-does-not-render"]
    assert "name | replace('\\n', ' ')" in found["fix"]
    assert list(messages()) == ["cy@example.com"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{{ due | date('%d.%m.%Y') }}", 'locale = "de_AT"'),
        ("{{ due | date('%d.%m.%Y', locale='de') }}", "write dd.MM.yyyy"),
        ("{{ due.strftime('%d.%m.%Y') }}", "{{ due | date('dd.MM.yyyy') }}"),
        ("{{ utcnow().year }}", "{{ today | date }}"),
    ],
)
def test_template_that_wants_dates_is_reported_what_works(text: str, hint: str) -> None:
    campaign("email,due\nann@example.com,2026-12-24\n", text)
    result = run("check", ".")
    assert result.exit_code == 2
    assert hint in " ".join(result.output.split())
    assert "did you mean" not in result.output
    assert messages_of("{{ due | date('dd.MM.yyyy', locale='de') }}") == "24.12.2026\n"


def messages_of(text: str) -> str:
    Path("message.txt").write_text(text)
    return messages()["ann@example.com"]


def test_sign_without_width_is_shown() -> None:
    campaign("email,name\nbob@exam\u200bple.com,Bob\n\ufeffann@example.com,Ann\n", "Hi")
    (found,) = findings()["bad-row"]
    assert "'bob@exam<U+200B>ple.com'" in found["message"]
    assert list(messages()) == ["ann@example.com"]


def test_sign_without_width_in_a_heading_is_taken_off() -> None:
    campaign("\u200bEmail,name\nann@example.com,Ann\n", "{{ Email }}")
    assert messages() == {"ann@example.com": "ann@example.com\n"}


def test_fields_are_named_once() -> None:
    campaign("email,name\nann@example.com,Ann\n", "{{ missing }}")
    (found,) = findings()["row-does-not-render"]
    assert "can use email, name, row;" in found["fix"]
