"""`bulkmail completion`: what makes a shell complete commands and flags."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_BULKMAIL_COMPLETE"
EPILOG = """\b
Examples:
  bulkmail completion bash >> ~/.bashrc
  bulkmail completion zsh >> ~/.zshrc
  bulkmail completion fish > ~/.config/fish/completions/bulkmail.fish
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that completes commands and flags with the Tab key.

    It works in new shells; bash must be 4.4 or newer.
    """
    kind = get_completion_class(shell)
    if kind is None:  # click has them all
        raise click.UsageError(f"there is no completion for {shell}")
    completion = kind(context.find_root().command, {}, "bulkmail", VARIABLE)
    click.echo(completion.source_template % completion.source_vars())
