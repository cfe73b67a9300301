"""A real Postfix of our own, beside whatever the machine runs: own folders, a free port on loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.servers.kept import UNKNOWN, MailServer
from tests.servers.programs import free_port, require_program, require_root, wait_until_listening

# import_environment keeps its default: the daemons find our folder by MAIL_CONFIG.
MAIN = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
maillog_file = {home}/log
maillog_file_prefixes = {home}
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = postfix.test
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
default_transport = error:no mail leaves this machine
relay_transport = error:no mail leaves this machine
virtual_transport = virtual
virtual_mailbox_domains = static:all
virtual_mailbox_base = {home}
virtual_mailbox_maps = regexp:{home}/etc/users
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
smtputf8_enable = yes
smtpd_discard_ehlo_keywords =
"""
USERS = f"""\
if !/^{UNKNOWN}/
/./ mail/
endif
"""
MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
# What `post-install create-missing` reads from its environment.
INSTALLED = (
    *("command_directory", "config_directory", "daemon_directory", "data_directory", "html_directory", "mail_owner"),
    *("mailq_path", "manpage_directory", "meta_directory", "newaliases_path", "queue_directory", "readme_directory"),
    *("sample_directory", "sendmail_path", "setgid_group", "shlib_directory"),
)


@contextmanager
def run_postfix(settings: Mapping[str, str] | None = None, *, below: Path | None = None) -> Iterator[MailServer]:
    """A Postfix that keeps mail for anyone whose name does not begin with `unknown`; `settings` go into main.cf.

    Its folder is made `below` this one.
    """
    require_root()
    postfix, postconf = require_program("postfix"), require_program("postconf")
    # Not below pytest's own folder, which only root may enter: Postfix' daemons are other users.
    home = Path(tempfile.mkdtemp(prefix="bulkmail-postfix-", dir=below))
    try:
        port = free_port()
        _lay_out(home, port=port, settings=settings or {})
        _create_queue(home, postconf)
        _control(postfix, home, "start")
        try:
            wait_until_listening(port, greets=(settings or {}).get("smtpd_tls_wrappermode") != "yes")
            yield MailServer(port, home / "mail", home / "log", recipient_header="X-Original-To")
        finally:
            _control(postfix, home, "stop")
    finally:
        shutil.rmtree(home)


def _lay_out(home: Path, *, port: int, settings: Mapping[str, str]) -> None:
    home.chmod(0o755)
    for folder in ("etc", "data", "mail", "queue"):
        (home / folder).mkdir()
    shutil.chown(home / "data", "postfix")
    shutil.chown(home / "mail", "nobody", "nogroup")
    mail = (home / "mail").stat()
    main = MAIN.format(home=home, uid=mail.st_uid, gid=mail.st_gid)
    said = {**dict(line.split(" =", 1) for line in main.splitlines()), **settings}
    (home / "etc/main.cf").write_text("".join(f"{name} = {value.strip()}\n" for name, value in said.items()))
    (home / "etc/master.cf").write_text(MASTER.format(port=port))
    (home / "etc/users").write_text(USERS)
    for file in (home / "etc").iterdir():
        os.utime(file, (0, 0))  # Postfix waits for a file that was written this second: someone may be writing still
    # Without it, `postfix start` first looks through the whole system, for seconds.
    (home / "queue/quick-start").touch()


def _create_queue(home: Path, postconf: Path) -> None:
    command = [str(postconf), "-c", str(home / "etc"), *INSTALLED]
    known = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    installed = dict(line.split(" = ", 1) for line in known.splitlines() if " = " in line)
    subprocess.run(
        [Path(installed["daemon_directory"]) / "post-install", "create-missing"],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "MAIL_CONFIG": str(home / "etc"), **installed},
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _control(postfix: Path, home: Path, command: str) -> None:
    # Its daemons inherit our output: a pipe there would keep anyone who reads it waiting for ever.
    done = subprocess.run(
        [postfix, "-c", home / "etc", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=15.0,
    )
    if done.returncode:
        log = home / "log"
        raise RuntimeError(f"postfix {command} failed:\n{log.read_text() if log.exists() else '(no log)'}")
