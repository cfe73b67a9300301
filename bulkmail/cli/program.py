"""What all commands share: the table they are found in, their help, and one way out of the process."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from bulkmail.cli.machine import ended, json_errors, put
from bulkmail.model.lazy import dataclass

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])

# Name, module, help; in the order in which a campaign meets them.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("bulkmail.cli.init", "Create a campaign to start from."),
    "allow": ("bulkmail.cli.allow", "Allow a campaign or an outbox to run the commands that it names."),
    "check": ("bulkmail.cli.check", "Check list, message and settings; send nothing."),
    "preview": ("bulkmail.cli.preview", "Show the messages as they would be sent."),
    "send": ("bulkmail.cli.send", "Send a campaign, or continue an interrupted one."),
    "compose": ("bulkmail.cli.compose", "Write and send one message, step by step in the terminal."),
    "resume": ("bulkmail.cli.resume", "Continue a run as it was recorded."),
    "stop": ("bulkmail.cli.stop", "Stop a run that another process is sending."),
    "cancel": ("bulkmail.cli.cancel", "Cancel a run: recipients not yet sent to are skipped."),
    "reconcile": ("bulkmail.cli.reconcile", "Look up messages in doubt in a mailbox or a server's log."),
    "status": ("bulkmail.cli.status", "Show the state of a run, also while it is sending."),
    "report": ("bulkmail.cli.report", "Report the result of every row: text, CSV, JSON or HTML."),
    "bounces": ("bulkmail.cli.bounces", "Read bounces, spam complaints and unsubscribe requests."),
    "suppress": ("bulkmail.cli.suppress", "Manage the suppression list: addresses never to send to."),
    "erase": ("bulkmail.cli.erase", "Erase an address from everything that bulkmail stores."),
    "purge": ("bulkmail.cli.purge", "Remove old runs and their reports."),
    "serve": ("bulkmail.cli.serve", "Serve the unsubscribe page, one-click unsubscribe and webhooks."),
    "console": ("bulkmail.cli.console", "Open a page to write, rehearse, send and watch campaigns."),
    "relay": ("bulkmail.cli.relay", "Test a mail server and show what it supports."),
    "store": ("bulkmail.cli.store", "Make, upgrade and check a store in PostgreSQL."),
    "doctor": ("bulkmail.cli.doctor", "Look at the installation and say what is missing."),
    "sandbox": ("bulkmail.cli.sandbox", "Run a test mail server that keeps all mail and delivers none."),
    "inbox": ("bulkmail.cli.inbox", "Read the mail that a rehearsal or the sandbox kept."),
    "completion": ("bulkmail.cli.completion", "Print a script that completes commands with the Tab key."),
}

HELP = """Send personal messages to a list, at a controlled pace, with a result for every row.

\b
New here?  Type:
  bulkmail init spring     create a campaign to start from
  bulkmail send spring     rehearse it: no mail is sent to recipients
"""
EPILOG = "bulkmail COMMAND --help explains a command and shows examples."
DEBUG_VARIABLE = "BULKMAIL_DEBUG"
# Objects, not 700: imports make a hundred thousand that stay, and an eighth of a short run went into searching them for
# garbage.  A message leaves none that only such a search would find.
COLLECTED_AFTER = 20_000


@dataclass(slots=True)
class Errand:
    """What is known of the command under way, for its end and for the case that it fails."""

    wants_traceback: bool = False
    outbox: str = ""
    prints_json: bool = False
    result: dict[str, object] = field(default_factory=dict)  # what there is to say of its end, for programs


def note_outbox(path: Path | str) -> None:
    """Remembers the outbox that is at work, so that even a bug of ours can say how to go on."""
    context = click.get_current_context(silent=True)
    errand = context.find_object(Errand) if context is not None else None
    if errand is not None:
        errand.outbox = str(path)


def note_result(result: Mapping[str, object]) -> bool:
    """Remembers what a command came to; says whether that is printed as JSON, in place of words."""
    context = click.get_current_context(silent=True)
    errand = context.find_object(Errand) if context is not None else None
    if errand is None:
        return False
    errand.result |= result
    return errand.prints_json


def json_option(function: F) -> F:
    """Adds `--json` to a command that notes its result."""

    def note(context: click.Context, option: click.Parameter, value: bool) -> None:
        errand = context.find_object(Errand)
        if value and errand is not None:
            errand.prints_json = True

    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=note,
        help="Print the result as one JSON object.",
    )(function)


class Program(click.Group):
    """`bulkmail`.  A command's return value, if it is a number, is the exit code."""

    def __init__(self) -> None:
        version = click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        )
        docs = click.Option(
            ["--docs"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_docs,
            help="Show where the documentation is and exit.",
        )
        super().__init__(
            name="bulkmail",
            help=HELP,
            epilog=EPILOG,
            params=[version, docs, _debug_option(hidden=False)],
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        """From the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command's module."""
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        command.name = cmd_name
        for each in (command, *(command.commands.values() if isinstance(command, click.Group) else ())):
            if all(option.name != "debug" for option in each.params):
                each.params.append(_debug_option(hidden=True))  # people add it where the error was: at the end
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table, so that help imports no command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like every group's, with our own words for a command that is none."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            raise UnknownCommand(name)
        return super().resolve_command(ctx, args)

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        """Like every group's; prints the help if that is asked for."""
        with _noticing_a_lost_reader():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Like every group's."""
        with _noticing_a_lost_reader():
            return super().invoke(ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From the table: a key press must not wait for every command to be imported."""
        from click.shell_completion import CompletionItem

        commands = [
            CompletionItem(name, help=summary) for name, (_, summary) in COMMANDS.items() if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Runs a command and ends the process with its exit code; `standalone_mode=False` raises what it raises."""
        if not extra.pop("standalone_mode", True):
            return super().main(args, prog_name, standalone_mode=False, **extra)
        errand = Errand(wants_traceback=os.environ.get(DEBUG_VARIABLE, "") not in ("", "0"))
        _let_any_text_be_printed()
        if args is None:  # the process is ours
            gc.set_threshold(COLLECTED_AFTER)
        with json_errors(sys.argv[1:] if args is None else args) as events:
            try:
                code = super().main(args, prog_name, standalone_mode=False, obj=errand, **extra)
                sys.stdout.flush()  # here, where a reader that has gone away can still be dealt with
            except SystemExit:
                raise
            except BaseException as error:
                from bulkmail.cli.mishaps import tell

                mishap = tell(
                    error,
                    outbox=errand.outbox,
                    wants_traceback=errand.wants_traceback,
                    is_quiet=events is not None,
                )
                code = mishap.exit_code
                errand.result |= {"error": mishap.message or None, "hint": mishap.hint or None}
            code = code if isinstance(code, int) else 0
            _say_the_end(errand, code, events)
        if args is None:
            gc.freeze()  # nor is there anything to be gained by a search at the very end
        sys.exit(code)


def _say_the_end(errand: Errand, code: int, events: TextIO | None) -> None:
    """How the command ended, for programs that asked; a reader that has gone away misses it."""
    result = ended(errand.result, code)
    with suppress(OSError, ValueError):
        if errand.prints_json:
            click.echo(json.dumps(result, indent=2))
    with suppress(OSError, ValueError):
        if events is not None:
            put(events, {"event": "ended", **result})


class ReaderGone(Exception):
    """The reader of our output has closed it.  Click would end the process with 1, which says something else here."""


@contextmanager
def _noticing_a_lost_reader() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error


class UnknownCommand(click.UsageError):
    """The first word is no command."""

    def __init__(self, name: str) -> None:
        super().__init__(f"there is no command {name!r}")
        self.name = name


def _let_any_text_be_printed() -> None:
    """A name in a script that the terminal lacks becomes question marks, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _debug_option(*, hidden: bool) -> click.Option:
    def note(context: click.Context, option: click.Parameter, value: bool) -> None:
        errand = context.find_object(Errand)
        if value and errand is not None:
            errand.wants_traceback = True

    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        hidden=hidden,
        callback=note,
        help=f"Show the traceback of an error; {DEBUG_VARIABLE}=1 does the same.",
    )


def _show_version(context: click.Context, option: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("bulkmail")
    except PackageNotFoundError:
        number = "(not installed)"
    click.echo(f"bulkmail {number}")
    context.exit()


def _show_docs(context: click.Context, option: click.Parameter, value: bool) -> None:
    """They come with the program, as Markdown."""
    if not value or context.resilient_parsing:
        return
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "data" / "docs", package.parent / "docs"):
        if (folder / "index.md").is_file():
            click.echo(folder / "index.md")
            context.exit()
    from bulkmail.model.errors import ConfigError

    raise ConfigError("this installation lacks its documentation", hint="pip install --force-reinstall bulkmail")
