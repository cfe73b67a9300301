"""A real Exim of our own, beside whatever the machine runs: own folders, a free port on loopback."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.servers.kept import UNKNOWN, MailServer
from tests.servers.programs import (
    end,
    environment_of,
    free_port,
    missing,
    require_program,
    require_root,
    wait_until_listening,
)

USER = "Debian-exim"  # compiled in

# One Maildir for all: a path made of the local part is "tainted", and refused.
CONFIGURATION = """\
exim_path = {program}
primary_hostname = exim.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
spool_directory = {home}/spool
log_file_path = {home}/log/%slog
pid_file_path = {home}/spool/exim.pid
keep_environment =
deliver_drop_privilege = true
never_users =
host_lookup =
rfc1413_query_timeout = 0s
smtputf8_advertise_hosts = *
smtp_accept_max = 200
smtp_accept_queue_per_connection = 0
acl_smtp_rcpt = check_recipient
acl_smtp_data = accept
{settings}
begin acl
check_recipient:
  deny local_parts = ^{unknown}
       message = 5.1.1 User unknown
  accept
{acls}
begin routers
{routers}
everyone:
  driver = accept
  transport = keep

begin transports
{transports}
keep:
  driver = appendfile
  directory = {home}/mail
  maildir_format
  create_directory
  envelope_to_add
  return_path_add
  user = {user}

begin retry
* * F,1h,1s

begin authenticators
{authenticators}
"""


@contextmanager
def run_exim(
    settings: Mapping[str, str] | None = None,
    *,
    authenticators: str = "",
    acls: str = "",
    routers: str = "",
    transports: str = "",
) -> Iterator[MailServer]:
    """An Exim that keeps mail for anyone whose name does not begin with `unknown`.

    `settings` are main options, `authenticators` the text of that section; `acls` is added to that of the ACLs,
    `routers` and `transports` come before those that are there, with HOME for the folder of this server.
    """
    require_root()
    installed = require_program("exim4")
    import pwd  # only here: Windows has none, and imports this module too

    if not any(user.pw_name == USER for user in pwd.getpwall()):
        missing(f"there is no user {USER}, as whom exim4 runs")
    home = Path(tempfile.mkdtemp(prefix="bulkmail-exim-"))
    chosen = {"tls_advertise_hosts": "", **(settings or {})}
    try:
        port = free_port()
        home.chmod(0o755)
        # Its own user starts it again for each delivery, and may not be allowed to where it was found.
        program = Path(shutil.copyfile(installed, home / "exim4"))
        program.chmod(0o755)
        for folder in ("spool", "log", "mail"):
            (home / folder).mkdir()
            shutil.chown(home / folder, USER, USER)
        configuration = home / "exim.conf"
        configuration.write_text(
            CONFIGURATION.format(
                program=program,
                port=port,
                home=home,
                unknown=UNKNOWN,
                user=USER,
                settings="".join(f"{name} = {value.replace('PORT', str(port))}\n" for name, value in chosen.items()),
                authenticators=authenticators,
                acls=acls,
                routers=routers.replace("HOME", str(home)),
                transports=transports.replace("HOME", str(home)),
            )
        )
        # -bdf stays in the foreground, so that it is ours to end; -q runs the queue again for what was left.
        process = subprocess.Popen(
            [program, "-C", configuration, "-bdf", "-q1m"],
            env=environment_of(installed),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_listening(port, process=process, greets="tls_on_connect_ports" not in chosen)
            yield MailServer(port, home / "mail", home / "log/mainlog", recipient_header="Envelope-To")
        finally:
            end(process)
    finally:
        shutil.rmtree(home)
