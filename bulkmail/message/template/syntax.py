"""What a template that Jinja cannot read probably means, and how that is written."""

from __future__ import annotations

from bulkmail.model.lazy import lazy_pattern

_CURLY = lazy_pattern("[‘’‚‛“”„‟«»]")
_WORDS = lazy_pattern(r"\{\{[-+]?\s*([^\W\d]\w*(?:[ \t]+[\w.-]+)+)\s*(?:\||[-+]?\}\})")


def say(message: str, source: str, lineno: int) -> tuple[str, str]:
    """What is wrong with line `lineno`, and the fix; the message of Jinja and no fix where that says it best."""
    lines = source.splitlines()
    line = lines[lineno - 1] if 0 < lineno <= len(lines) else ""
    if "{#" in line and "#}" not in "".join([line[line.rindex("{#") :], *lines[lineno:]]):
        return (
            '"{#" begins a comment of the template, and no "#}" ends it',
            'in a style sheet write a space between them, "{ #main", in a template end the comment with "#}"',
        )
    if found := next((each for each in _CURLY.finditer(line) if _is_in_tag(line, each.start())), None):
        return f"a tag has the typographic quote {found[0]}", "write straight quotes: ' or \""
    if found := _WORDS.search(line):
        return (
            f"{found[0]} is not one name",
            f'a column whose name has spaces is written {{{{ row["{found[1]}"] }}}}',
        )
    return message, ""


def _is_in_tag(line: str, position: int) -> bool:
    before = line[:position]
    return max(before.rfind("{{"), before.rfind("{%")) > max(before.rfind("}}"), before.rfind("%}"))
