"""A page in one file that opens anywhere: style sheet and script inside it, and nothing asked of the network."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

_HERE = "bulkmail.pages"


def page_of(package: str, **values: object) -> bytes:
    """The `page.html` of `package` with its `page.css` and `page.js` inside, in UTF-8.

    It extends `base.html` and may import `macros.html`; its style sheet is added to `kit.css` and
    `base.css`, its script to `base.js`.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        loader=FunctionLoader(lambda name: read_part(_HERE, name)),
    )
    script = read_part(_HERE, "base.js") + read_part(package, "page.js")
    css = read_part(_HERE, "kit.css") + read_part(_HERE, "base.css") + read_part(package, "page.css")
    page = environment.from_string(read_part(package, "page.html")).render(
        **values,
        # All ours, and none holds an end of its own element.
        css=Markup(css),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=policy_for(script),
    )
    return page.encode("utf-8", "replace")


def policy_for(script: str) -> str:
    """The content security policy of a page in which only `script` runs."""
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; "
        f"script-src 'sha256-{digest}'"
    )


def read_part(package: str, name: str) -> str:
    """A file that lies beside the modules of `package`."""
    return files(package).joinpath(name).read_text("utf-8")
