"""What `[relay]` asks of the server beside taking the mail: reports, and TLS all the way."""

from __future__ import annotations

from dataclasses import replace

from bulkmail.model.dsn import parse_dsn
from bulkmail.model.errors import ConfigError
from bulkmail.model.relay import Relay, Tls, check_requiretls
from bulkmail.settings.schema import RelayTable
from bulkmail.settings.sources import Sources


def with_wishes(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    """`relay` with what the table says of `dsn`, `dsn_return` and `requiretls`.  Faults are reported."""
    relay = _with_dsn(sources, relay, table)
    requires_tls = relay.requires_tls if table.requiretls is None else table.requiretls
    said = sources.pick(("relay", "requiretls"), table.requiretls)
    where = said.place if said else "requiretls"
    try:
        if relay.socket_path and requires_tls:
            raise ConfigError("does not go with a Unix socket", hint="leave it out")
        check_requiretls("yes" if requires_tls else "no", tls=relay.tls)
    except ConfigError as error:
        sources.problems.add(f"{where}: {error}", error.hint)
        return relay
    if relay.socket_path and relay.tls is not Tls.OFF:
        sources.problems.add(f"{sources.place(('relay', 'tls'))}: does not go with a Unix socket", "leave it out")
    return replace(relay, requires_tls=requires_tls)


def _with_dsn(sources: Sources, relay: Relay, table: RelayTable) -> Relay:
    said = sources.pick(("relay", "dsn"), table.dsn)
    if said is None:
        if table.dsn_return is not None and relay.dsn is None:
            place = sources.place(("relay", "dsn_return"))
            sources.problems.add(f"{place}: says nothing without dsn", 'add dsn = "failure", or leave it out')
            return relay
        returns = sources.pick(("relay", "dsn_return"), table.dsn_return)
        if returns is None or relay.dsn is None:
            return relay
        said = replace(returns, value=", ".join(relay.dsn.events) or "never")
    kept = "full" if relay.dsn is not None and relay.dsn.returns_full else "headers"
    try:
        return replace(relay, dsn=parse_dsn(said.value, returns=table.dsn_return or kept))
    except ConfigError as error:
        sources.problems.add(f"{said.place.rpartition(':')[0] or said.place}: {error}", error.hint)
        return relay
