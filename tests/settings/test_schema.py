"""What the schema says of its keys beside their types."""

from __future__ import annotations

import re

import pytest

from bulkmail.settings.schema import Sensitivity, known_keys, sensitivity_of

TABLES = [
    *("relay", "recipients", "message", "sending", "suppressions", "notify", "serve", "webhook", "bounces"),
    *("relay.oauth", "message.unsubscribe", "message.dkim"),
]


@pytest.mark.parametrize("table", TABLES)
def test_key_that_names_a_command_or_a_secret_says_so(table: str) -> None:
    path = table.split(".")
    keys = known_keys([*path])
    assert keys
    for key in keys:
        found = sensitivity_of([*path, key])
        if key.endswith("command"):
            assert found is Sensitivity.COMMAND, key
        elif re.search(r"_env$|^(key|token|secret)_file$|(password|secret|token|webhook)_file$", key):
            assert found is Sensitivity.SECRET, key


@pytest.mark.parametrize(
    ("path", "sensitivity"),
    [
        (("relay", 0, "password_command"), Sensitivity.COMMAND),
        (("relay", "oauth", "token_url"), Sensitivity.HOOK),
        (("notify", "webhook"), Sensitivity.HOOK),
        (("message", "dkim", 1, "key_file"), Sensitivity.SECRET),
        (("message", "from"), None),
        (("message", "headers", "key_command"), None),
        (("data", "password_env"), None),
        (("relay",), None),
        (("no", "such", "table"), None),
    ],
)
def test_sensitivity_of_a_path(path: tuple[str | int, ...], sensitivity: Sensitivity | None) -> None:
    assert sensitivity_of(path) is sensitivity
