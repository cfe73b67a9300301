"""What all tests share: fixtures, Hypothesis' profiles, and the watch over calls that block the loop."""

from __future__ import annotations

import gc
import itertools
import os
import random
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings
from msgspec import structs

from bulkmail.model.campaign import Campaign, Template
from bulkmail.model.delivery import Envelope, Message
from bulkmail.model.recipient import Address, Place, Recipient
from tests.chance import SEED, chance
from tests.servers.exim import run_exim
from tests.servers.kept import MailServer
from tests.servers.postfix import run_postfix
from tests.servers.sinks import Sink, run_sink

if TYPE_CHECKING:
    from tests.signing import KeyRing

PACKAGE = Path(__file__).parents[1] / "bulkmail"

# --- Hypothesis ------------------------------------------------------------------------------------------------------

# No deadline: on a shared machine it fails tests at random.
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile(
    "ci", max_examples=300, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
settings.load_profile(PROFILE)

# --- which tests run --------------------------------------------------------------------------------------------------

LEFT_OUT = ("slow", "crash", "real")  # by the mark expression of pyproject.toml; `pytest -m ''` runs all
BY_DEFAULT = " and ".join(f"not {mark}" for mark in LEFT_OUT)
# As every module of slow tests says it, in the first column.
WHOLE_MODULE = re.compile(rf"^pytestmark = .*\bpytest\.mark\.(?:{'|'.join(LEFT_OUT)})\b", re.MULTILINE)
SERVERS = {"postfix", "exim", "smtp_sink", "postgresql"}


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Take all cores where no test is named and no number of processes: `pytest` alone."""
    if hasattr(config, "workerinput") or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    option = config.option
    if config.pluginmanager.hasplugin("xdist") and not (option.usepdb or option.collectonly or option.tx):
        if option.numprocesses is None:
            option.numprocesses = "auto"
        if option.dist == "no":
            option.dist = "worksteal"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto` of all tests: three processes on two cores, for slow tests wait about as long as they compute."""
    if config.option.markexpr == BY_DEFAULT:
        return None
    return 3 * len(os.sched_getaffinity(0)) // 2 if hasattr(os, "sched_getaffinity") else None


def pytest_configure(config: pytest.Config) -> None:
    """A test or file that is named is meant, marked or not."""
    if hasattr(config, "workerinput") or config.option.markexpr != BY_DEFAULT:
        return
    named = config.args if config.args_source is pytest.Config.ArgsSource.ARGS else []
    if named and all(".py" in argument for argument in named):
        config.option.markexpr = ""


def pytest_report_header(config: pytest.Config) -> str:
    which = config.option.markexpr or "all"
    if which == BY_DEFAULT:
        which = f"none that are {', '.join(LEFT_OUT)}; pytest -m '' runs all"
    return f"tests: {which}\nfaults: BULKMAIL_SEED={SEED}"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import a module all of whose tests are left out by default."""
    if config.option.markexpr != BY_DEFAULT or collection_path.suffix != ".py":
        return None
    return bool(WHOLE_MODULE.search(collection_path.read_text(encoding="utf-8"))) or None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Ten thousand tests that stay are no garbage: looking through them again and again is a fifth of collecting."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)
        is_property = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if PROFILE == "ci" and is_property and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(180))  # this many examples take longer than one


# --- what blocks the loop --------------------------------------------------------------------------------------------


class _Every:
    """Contains every function: blockbuster asks for functions where we mean whole modules."""

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())


@pytest.fixture(scope="session")
def loop_watch() -> BlockBuster:
    """Raises on calls that block the loop if bulkmail makes them.

    The outbox may, for its microseconds (design §5), and so may what keeps a rehearsal's mail: a thread costs more.
    So may the files of rows, which are read where the message is written, at the moment that the line asks for it, and
    a program's own rows, which are read where the program is.
    """
    watch = BlockBuster("bulkmail")
    excepted = [module for room in ("outbox", "sandbox") for module in (PACKAGE / room).rglob("*.py")]
    excepted += [PACKAGE / "message" / "attachments" / "enclosures.py"]
    excepted += [PACKAGE / "cluster" / "database.py"]  # where the driver looks for ~/.pgpass each time it connects
    for function in watch.functions.values():
        for module in excepted:
            function.can_block_in(module.relative_to(PACKAGE.parent).as_posix(), _Every())
        function.can_block_in("bulkmail/mailing/rows.py", {"_fetch_turn", "fetch_all"})
    return watch


@pytest.fixture(autouse=True)
def _loop_is_watched(request: pytest.FixtureRequest, loop_watch: BlockBuster) -> Iterator[None]:
    if not request.node.get_closest_marker("asyncio"):
        yield
        return
    loop_watch.activate()
    try:
        yield
    finally:
        loop_watch.deactivate()


# --- what must stay as it is ------------------------------------------------------------------------------------------


_NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test keeps its quota ledgers and its suppression list, made if need be: never the folder of anyone who
    runs the tests, nor by their own settings.
    """
    folder = tmp_path_factory.getbasetemp() / f"state-{next(_NUMBERS)}"
    monkeypatch.setenv("BULKMAIL_STATE_DIR", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.delenv("BULKMAIL_SUPPRESSIONS", raising=False)
    return folder


# --- chance ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """When faults come: the same for a test each time, another by BULKMAIL_SEED."""
    return chance(request.node.name)


# --- nouns and their factories ---------------------------------------------------------------------------------------


@pytest.fixture
def make_recipient() -> Callable[..., Recipient]:
    """Makes a recipient; keywords that are not `address`, `name` or `line` are further cells of the row."""

    def make(address: str = "ann@example.org", name: str = "Ann", *, line: int = 2, **cells: object) -> Recipient:
        fields = {"email": address, "name": name, **cells}
        return Recipient(Address.parse(address), name, fields, Place("people.csv", line))

    return make


@pytest.fixture
def recipient(make_recipient: Callable[..., Recipient]) -> Recipient:
    return make_recipient()


@pytest.fixture
def make_campaign() -> Callable[..., Campaign]:
    """Makes a campaign; a one-line template or a body may be given as its text alone."""
    plain = Campaign(
        name="spring",
        sender=Template("campaign.toml: from", "Shop <shop@example.org>"),
        subject=Template("campaign.toml: subject", "Hello {{ name }}"),
        text=Template("message.txt", "Dear {{ name }},\n\nwe are open.\n"),
    )

    def make(**changes: object) -> Campaign:
        for part, value in changes.items():
            if part not in ("name", "reverse_path") and isinstance(value, str):
                changes[part] = Template(f"campaign.toml: {part}", value)
        return replace(plain, **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture
def campaign(make_campaign: Callable[..., Campaign]) -> Campaign:
    return make_campaign()


@pytest.fixture
def make_message() -> Callable[..., Message]:
    """Makes a message to `forward_path`; `content` with CRLF line ends."""

    def make(
        forward_path: str = "ann@example.org",
        *,
        reverse_path: str = "shop@example.org",
        content: bytes = b"Subject: Hello\r\n\r\nDear Ann.\r\n",
        **changes: object,
    ) -> Message:
        message = Message(Envelope(reverse_path, forward_path), "<1.spring@example.org>", [content])
        return structs.replace(message, **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture
def message(make_message: Callable[..., Message]) -> Message:
    return make_message()


# --- signatures ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def key_ring() -> KeyRing:
    """Keys to sign with and a verifier that is not ours."""
    from tests.signing import KeyRing  # late: most tests sign nothing

    return KeyRing()


# --- real servers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def postfix() -> Iterator[MailServer]:
    """A real Postfix that keeps what it is sent; skipped where there is none, except in CI."""
    with run_postfix() as server:
        yield server


@pytest.fixture
def exim() -> Iterator[MailServer]:
    """A real Exim that keeps what it is sent; skipped where there is none, except in CI."""
    with run_exim() as server:
        yield server


@pytest.fixture
def smtp_sink() -> Iterator[Sink]:
    """Postfix' smtp-sink, which only counts; skipped where there is none, except in CI."""
    with run_sink() as sink:
        yield sink
