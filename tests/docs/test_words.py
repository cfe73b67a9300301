"""Words that a native reader stumbles over stay out of code and docs; each hit that is allowed has a reason."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = re.compile(
    r"(?<![A-Za-z])(mend(?:s|ed)?|whoever|nobody|somebody|anew|puts? off|so many|octets?|honour\w*|dice)(?![A-Za-z])",
    re.I,
)
# What sounds translated, in what people read: README, docs, help (docs/commands.md).
PROSE = re.compile(
    r"(?<![A-Za-z_`])(whatever|told|found out|fare[sd]?|fared|heed\w*|bears?|lanes?|letters?|gone on|go(?:es)? on"
    r"|put off|so long|only then|mishap|errand)(?![A-Za-z_`])",
    re.I,
)
# Each with the reason why it may stay.
PROSE_ALLOWED = {
    "gone on": "'gone on Friday'",
    "letter": "of the alphabet",
}
FIELD = re.compile(r"octet-stream")
# What these begin with may hold such words.
ALLOWED = (
    "bulkmail/model/lexicon.py",  # patterns over servers' replies, and comments on them
    "bulkmail/model/wording.py",  # the same
    "bulkmail/model/wording.py",  # the same
    "bulkmail/data/bounces.toml",  # the same
    "bulkmail/data/replies.toml",  # the same
    "bulkmail/data/mailbox_providers.toml",  # comments on sources
    "bulkmail/checks",  # "nobody@" is a role address
)


@pytest.mark.slow
def test_words_of_the_old_tone_are_gone() -> None:
    found: Counter[str] = Counter()
    paths = [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "bulkmail").rglob("*.py"),
        *(ROOT / "bulkmail").rglob("*.toml"),
    ]
    for path in paths:
        text = FIELD.sub("", path.read_text(encoding="utf-8"))
        name = path.relative_to(ROOT).as_posix()
        if hits := WORDS.findall(text):
            found[name] = len(hits)
    left = {name: n for name, n in found.items() if not name.startswith(ALLOWED)}
    assert not left
    assert sum(found.values()) < 60


def test_docs_read_like_plain_english() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")]
    found = Counter(
        hit.lower() for page in pages for hit in PROSE.findall(page.read_text(encoding="utf-8").replace("\n", " "))
    )
    assert not {word: n for word, n in found.items() if word not in PROSE_ALLOWED}
    assert sum(found.values()) < 30
