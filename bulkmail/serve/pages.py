"""The pages that a person who follows an unsubscribe link sees: plain HTML without scripts, cookies or links."""

from __future__ import annotations

from html import escape

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self';"
    " frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
"""The address of the page is a key to one opt-out, and must not travel on."""

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 1.1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 12vh auto; padding: 0 1rem; color: #222;
  background: #fff; }}
button {{ font: inherit; padding: .6rem 1.2rem; border: 0; border-radius: .3rem; background: #174ea6; color: #fff; }}
button.second {{ background: #fff; color: #174ea6; border: 1px solid #174ea6; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #161616; color: #eee; }} }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""


def _page(title: str, body: str) -> str:
    return _PAGE.format(title=escape(title), body=body)


def _what(list_id: str) -> str:
    return (
        f"messages of the list <strong>{escape(list_id)}</strong>"
        if list_id
        else "messages of <strong>all our lists</strong>"
    )


def _form(action: str, label: str, *, style: str = "") -> str:
    kind = f' class="{style}"' if style else ""
    return (
        f'<form method="post"><input type="hidden" name="action" value="{action}">'
        f"<p><button{kind}>{escape(label)}</button></p></form>"
    )


def asking(address: str, list_id: str) -> str:
    """What GET shows: nothing has happened yet."""
    body = f"<p>Do you want no more {_what(list_id)} at <strong>{escape(address)}</strong>?</p>"
    return _page("Unsubscribe", body + _form("unsubscribe", "Unsubscribe"))


def unsubscribed(address: str, list_id: str) -> str:
    """What the button leads to."""
    body = f"<p><strong>{escape(address)}</strong> gets no more {_what(list_id)}.</p>"
    body += "<p>If this was a mistake, you can take it back within an hour:</p>"
    return _page("You are unsubscribed", body + _form("undo", "Subscribe again", style="second"))


def taken_back(address: str, list_id: str) -> str:
    """After a mistake."""
    return _page("You are subscribed again", f"<p><strong>{escape(address)}</strong> gets {_what(list_id)} again.</p>")


def too_late() -> str:
    """For who wants to take back what is old, or was never there."""
    return _page("This cannot be taken back here", "<p>Please write to the sender to subscribe again.</p>")


def unknown() -> str:
    """For a link that is none of ours."""
    body = "<p>The link is not complete or no longer valid. Please use the link in the message, or reply to it.</p>"
    return _page("This link is not valid", body)


def busy() -> str:
    """When it cannot be written just now."""
    return _page("Please try again", "<p>Your wish could not be stored just now. Please try again in a minute.</p>")
