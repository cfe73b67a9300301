"""How long the sample newsletter takes with its CSS inlined, against css-inline alone on the same pages.

Also the roads that a page takes whose styles, or whose text, depend on the row.  Run from a checkout:
python benchmarks/newsletter.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import css_inline

from bulkmail.message.compose.composer import Composer
from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.recipient import Address, Place, Recipient

MESSAGES = 300
ROUNDS = 7
FOLDER = Path(__file__).resolve().parent.parent / "samples" / "newsletter"
HTML = (FOLDER / "message.html").read_text("utf-8")
TEXT = (FOLDER / "message.txt").read_text("utf-8")
# A style of the row's own: each message has to be inlined for itself.
OF_ROW = HTML.replace('class="gift ink"', "class=\"gift ink {{ favourite | replace(' ', '-') }}\"")
MARKDOWN = (
    "# Good morning {{ name }}\n\nFrom Monday **the ovens are on**.\n\n- {{ favourite }}\n- [more](https://x.example)\n"
)


def people() -> list[Recipient]:
    """A list as the sample's."""
    return [
        Recipient(
            Address(f"person{number}", "example.com"),
            "Ann Li",
            {"name": f"Ann Lí {number}", "favourite": "rye loaf", "visits": str(number % 40)},
            Place("people.csv", number + 2),
        )
        for number in range(MESSAGES)
    ]


def compose(**parts: str | bool) -> Callable[[], object]:
    """Composes the message of these parts for everyone."""
    made = {name: Template(f"message.{name}", part) if isinstance(part, str) else part for name, part in parts.items()}
    campaign = Campaign(
        "benchmark", Template("s", "Bakery <hello@linden.example>"), Template("t", "{{ name }}!"), **made
    )
    composer = Composer(campaign, run_id="benchmark")
    recipients = people()

    def run() -> None:
        for row, recipient in enumerate(recipients, 1):
            composer.compose(recipient, row=row, forward_path=recipient.address.wire, date=1_700_000_000.0)

    return run


def inline_alone() -> Callable[[], object]:
    """What css-inline takes for the finished pages."""
    campaign = Campaign(
        "b", Template("s", "a@b.example"), Template("t", "x"), html=Template("h", HTML), inline_css=False
    )
    composer = Composer(campaign, run_id="benchmark")
    pages = [composer.render(recipient).html or "" for recipient in people()]
    inliner = css_inline.CSSInliner(
        keep_style_tags=True, remove_inlined_selectors=True, keep_link_tags=True, load_remote_stylesheets=False
    )
    return lambda: [inliner.inline(page) for page in pages]


def main() -> None:
    """Prints microseconds a message."""
    roads = {
        "css-inline alone": inline_alone(),
        "text, HTML, inlined once": compose(text=TEXT, html=HTML),
        "text made of HTML, inlined once": compose(html=HTML),
        "text, HTML, not inlined": compose(text=TEXT, html=HTML, inline_css=False),
        "text, HTML, inlined each": compose(text=TEXT, html=OF_ROW),
        "text made of each HTML, inlined each": compose(html=HTML.replace("{{ favourite }}", "{{ favourite | safe }}")),
        "Markdown": compose(markdown=MARKDOWN),
    }
    times: dict[str, list[float]] = {name: [] for name in roads}
    for _ in range(ROUNDS):
        for name, run in roads.items():
            started = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - started) / MESSAGES * 1e6)
    alone = statistics.median(times["css-inline alone"])
    print(f"the sample newsletter, {len(HTML):,} characters, {MESSAGES} messages, median of {ROUNDS}")
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:<38}{median:8.1f} µs a message, {median / alone:5.2f} × css-inline alone")


if __name__ == "__main__":
    main()
