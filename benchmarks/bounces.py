"""How many bounces are read right, beside the bars: python benchmarks/bounces.py FOLDER [--clone-from URL]

Two public sets, fetched into FOLDER when they are not there, and never shipped with bulkmail:

- the mails of Sisimai (BSD-2-Clause, repository set-of-emails), with what Sisimai itself (repository p5-sisimai, needs
  Perl with JSON and Class::Accessor::Lite) says of each as the truth.  The words of data/bounces.toml were made with
  the mails of even numbers in sight, and from wordings that are known otherwise; the odd ones measure them.
- the mails of flufl.bounce (Apache-2.0, from its source distribution, by pip), with the addresses in its own tests.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bulkmail.feedback.classify import classify
from bulkmail.feedback.mime import take_apart
from bulkmail.feedback.notice import RecipientNotice, read_notices
from bulkmail.model.feedback_event import FeedbackKind

SISIMAI = "https://github.com/sisimai"
FLUFL = "flufl.bounce==6.0.0"
MAILS = Path("maildir/bsd")
TRUTH = """
use strict; use warnings; use Sisimai; use JSON;
my $json = JSON->new->canonical;
for my $file (glob('{pattern}')) {{
    my $facts = eval {{ Sisimai->rise($file, delivered => 1, vacation => 1) }} || [];
    my ($name) = $file =~ m|([^/]+)[.]eml$|;
    my @told = map {{
        {{ recipient => $_->recipient->address, alias => $_->alias, reason => $_->reason, hard => $_->hardbounce }}
    }} @$facts;
    print $json->encode({{ file => $name, facts => \\@told }}), "\\n";
}}
"""
UNDECIDED = {"filtered", "onhold", "undefined"}  # reasons that say neither
NO_BOUNCE = {"feedback", "vacation"}


def names_of(notice: RecipientNotice) -> set[str]:
    return {each.lower() for each in (notice.address, notice.other) if each}


def measure(data: bytes, facts: list[dict[str, Any]], tally: Counter[str]) -> None:
    notices = read_notices(take_apart(data))
    wanted = [{each["recipient"].lower(), each["alias"].lower()} - {""} for each in facts]
    named = [names_of(notice) for notice in notices.recipients]
    everyone = set().union(*wanted)
    has_all = all(any(names & each for names in named) for each in wanted)
    tally["mails"] += 1
    tally["address"] += has_all and all(names & everyone for names in named)
    for fact, who in zip(facts, wanted, strict=True):
        if fact["reason"] in UNDECIDED:
            continue
        found = next((notice for notice in notices.recipients if names_of(notice) & who), None)
        if found is None and len(facts) == len(notices.recipients) == 1:
            found = notices.recipients[0]
        is_hard = found is not None and classify(found, notices.text).kind is FeedbackKind.HARD
        side = "hard" if fact["hard"] else "not hard"
        tally[side] += 1
        tally["right"] += is_hard == bool(fact["hard"])
        tally["missed" if fact["hard"] else "false"] += is_hard != bool(fact["hard"])


def fetch(folder: Path, source: str) -> tuple[Path, Path]:
    """The mails of Sisimai and the source of flufl.bounce, which are got where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("set-of-emails", "p5-sisimai"):
        if not (folder / name).exists():
            subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"{source}/{name}", folder / name], check=True)
    flufl = next(folder.glob("flufl*bounce-*/"), None)
    if flufl is None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "--dest", folder, FLUFL], check=True)
        with tarfile.open(next(folder.glob("flufl*bounce-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        flufl = next(folder.glob("flufl*bounce-*/"))
    return folder / "set-of-emails" / MAILS, flufl


def truth_of(mails: Path, folder: Path) -> list[dict[str, Any]]:
    """What Sisimai says of each of its mails: `{"file": NAME, "facts": [...]}`; asked once."""
    kept = folder / "truth.jsonl"
    if not kept.exists():
        script = TRUTH.format(pattern=mails / "*.eml")
        said = subprocess.run(
            ["perl", "-I", folder / "p5-sisimai" / "lib", "-e", script],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if b'"reason"' not in said.stdout:
            raise SystemExit("Sisimai reads nothing here: perl -MJSON -MClass::Accessor::Lite -e 1")
        kept.write_bytes(said.stdout)
    return [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]


def addresses_of(flufl: Path) -> dict[str, set[str]]:
    """The addresses that flufl.bounce's tests expect in each of its mails."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse((flufl / "tests" / "test_detectors.py").read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Tuple) or len(node.elts) < 3 or not isinstance(node.elts[1], ast.Constant):
            continue
        if str(node.elts[1].value).endswith(".txt"):
            named = (each.value for each in ast.walk(node.elts[2]) if isinstance(each, ast.Constant))
            found.setdefault(str(node.elts[1].value), set()).update(
                each.decode().lower() for each in named if isinstance(each, bytes)
            )
    return {name: addresses for name, addresses in found.items() if addresses}


def measure_flufl(flufl: Path) -> tuple[int, int]:
    """How many of its mails are read right, and how many there are."""
    right, wanted = 0, addresses_of(flufl)
    for name, addresses in wanted.items():
        data = (flufl / "tests" / "data" / name).read_bytes()
        named = [names_of(notice) for notice in read_notices(take_apart(data)).recipients]
        right += len(named) >= len(addresses) and all(names & addresses for names in named)
    return right, len(wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clone-from", default=SISIMAI, help="where the two repositories of Sisimai are")
    parser.add_argument("--half", choices=("even", "odd"), help="only this half of Sisimai's mails")
    asked = parser.parse_args()
    mails, flufl = fetch(asked.folder, asked.clone_from)
    halves = {name: Counter[str]() for name in ([asked.half] if asked.half else ["even", "odd"])}
    began = time.perf_counter()
    for reported in truth_of(mails, asked.folder):
        facts = [each for each in reported["facts"] if each["reason"] not in NO_BOUNCE]
        number = reported["file"].rpartition("-")[2]
        half = "odd" if number.isdecimal() and int(number) % 2 else "even"
        if facts and number.isdecimal() and half in halves:
            measure((mails / f"{reported['file']}.eml").read_bytes(), facts, halves[half])
    took = time.perf_counter() - began
    for name, tally in halves.items():
        decided = tally["hard"] + tally["not hard"]
        print(
            f"{name}: {tally['mails']} mails, address right {tally['address'] / max(1, tally['mails']):.1%} (bar 97);"
            f" hard or not right {tally['right'] / max(1, decided):.1%} (bar 95),"
            f" false hard {tally['false'] / max(1, tally['not hard']):.1%} (bar 3),"
            f" hard missed {tally['missed'] / max(1, tally['hard']):.1%} (bar 10)"
        )
    right, number = measure_flufl(flufl)
    print(f"flufl.bounce: {number} mails, address right {right / max(1, number):.1%} (bar 98)")
    print(f"{sum(tally['mails'] for tally in halves.values()) / max(took, 1e-9):.0f} mails a second")


if __name__ == "__main__":
    main()
