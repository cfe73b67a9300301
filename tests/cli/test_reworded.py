"""No behaviour depends on wording: with every sentence of the outer rooms worded otherwise, the same is done."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CAMPAIGN = """\
relay = "null:"
[recipients]
file = "people.csv"
max_invalid = "100%"
[message]
from = "Corner Shop <hello@shop.example>"
subject = "Hello {{ name }}"
locale = "en_GB"
html = "message.html"
"""
PAGE = """\
<p>Dear {{ name }}, pay {{ price | number }} by {{ due | date }}{% if vip %} as {{ tittle }}{% endif %}.</p>
<p><a href="{{ link }}">look</a> <a href="offers.html">or here</a> <img src="https://shop.example/a.png"></p>
"""
LONG = "x" * 1_100_000
PEOPLE = [
    ("ann@example.org", "Ann", "1,234.50", "2026-12-31", "https://shop.example/", ""),
    ("bob@example.org", "Bob", "1,234", "2026-12-31", "https://shop.example/", ""),  # two readings
    ("cid@example.org", "Cid", "12", "31.12.26", "https://shop.example/", ""),  # two digits
    ("dan@example.org", "Dan", "12", "1/2/2026", "https://shop.example/", ""),  # two readings
    ("eve@example.org", "Eve", "12", "2026-12-31", "shop/page.html", ""),  # leads nowhere
    ("fay@example.org", "Fay", "12", "2026-12-31", "https://shop.example/", "yes"),  # there is no tittle
    ("not an address", "Gus", "12", "2026-12-31", "https://shop.example/", ""),
    ("hal@gmial.com", LONG, "12", "2026-12-31", "https://shop.example/", ""),
    ("jon@gmial.com", "Jon", "12", "2026-12-31", "https://shop.example/", ""),
    ("ivy@example.org", "", "", "2026-12-31", "https://shop.example/", ""),
]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "campaign.toml").write_text(CAMPAIGN)
    (tmp_path / "message.html").write_text(PAGE)
    with (tmp_path / "people.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("email", "name", "price", "due", "link", "vip"), *PEOPLE])
    return tmp_path


def ran(shop: Path, *, reworded: bool) -> tuple[list[int], str, list[tuple[str, str]]]:
    """The exit codes of `check` and `send`, what the former prints as JSON, and the status of each row."""
    report = f"{reworded}.csv"
    commands = [
        ["check", ".", "--json"],
        ["send", ".", "--new", "--report", report, "--progress", "none"],
    ]
    script = f"""
import contextlib, sys
{"import tests.reworded" if reworded else ""}
import bulkmail.cli
codes = []
for words in {commands!r}:
    sys.argv = ["bulkmail", *words]
    try:
        with contextlib.redirect_stdout(sys.stdout if words[0] == "check" else sys.stderr):
            bulkmail.cli.main()
    except SystemExit as ended:
        codes.append(ended.code)
print(codes)
"""
    environment = {**os.environ, "BULKMAIL_STATE_DIR": str(shop / "state"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False, cwd=shop
    )
    found, _, codes = done.stdout.strip().rpartition("\n")
    with (shop / report).open(newline="", encoding="utf-8-sig") as file:
        rows = [(row["email"], row["delivery_status"]) for row in csv.DictReader(file)]
    return json.loads(codes), found, rows


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_same_is_found_and_sent_however_it_is_worded(shop: Path) -> None:
    codes, plain, rows = ran(shop, reworded=False)
    other_codes, worded, other_rows = ran(shop, reworded=True)
    assert worded != plain, "nothing was worded otherwise"
    assert (other_codes, other_rows) == (codes, rows)
    findings, others = json.loads(plain)["findings"], json.loads(worded)["findings"]
    kept = ("code", "severity", "lines", "column")
    assert [[each.get(key) for key in kept] for each in others] == [
        [each.get(key) for key in kept] for each in findings
    ]
    kinds = {each["code"] for each in findings}
    assert {"bad-row", "row-does-not-render", "image-without-alt", "link-relative"} <= kinds
