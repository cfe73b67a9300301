-- The suppression list of a sender, shared by all campaigns and programs on this machine.  Times are wall-clock seconds.
-- A digest is a keyed one of an address or a domain: it finds an entry without saying whose it is.

-- One row, id 1: what digests and tokens are keyed with.
CREATE TABLE secret (id INTEGER PRIMARY KEY CHECK (id = 1), key BLOB NOT NULL) STRICT;

-- The runs that reports may be about.
CREATE TABLE run (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    campaign TEXT NOT NULL,
    list_id TEXT NOT NULL,
    outbox TEXT NOT NULL,               -- an absolute path, empty where it is not known or in memory
    began_at REAL NOT NULL,
    is_bulk INTEGER NOT NULL DEFAULT 0  -- its message says itself that it goes to a list
) STRICT;

-- What came back, each report once.
CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source_id BLOB NOT NULL UNIQUE,     -- a digest of what the report is known by: that may name an address
    kind TEXT NOT NULL,
    counts_as TEXT NOT NULL,            -- what acts: the kind, soft for what is not proved, empty for nothing
    held INTEGER NOT NULL DEFAULT 0,    -- a hard bounce that looks like its provider's mistake; its kind is unclear
    at REAL NOT NULL,
    read_at REAL NOT NULL,
    proof TEXT NOT NULL,
    digest BLOB,                        -- of whom it acts on; NULL where the report does not tell
    key TEXT NOT NULL,                  -- Address.key, empty once erased
    provider TEXT NOT NULL,
    run INTEGER REFERENCES run,
    list_id TEXT NOT NULL,
    row INTEGER,
    delivery INTEGER,
    reason TEXT NOT NULL,
    code INTEGER,
    enhanced TEXT NOT NULL,
    words TEXT NOT NULL,
    source TEXT NOT NULL,
    report BLOB                         -- as it came, zlib
) STRICT;
CREATE INDEX event_of_address ON event (digest, at);
CREATE INDEX event_of_provider ON event (provider, run, at) WHERE kind = 'hard' OR held;
CREATE INDEX event_of_delivery ON event (run, delivery);

-- How many messages of a run went to a provider, by the start of the ten minutes in which they did.
CREATE TABLE sent (
    run INTEGER NOT NULL REFERENCES run,
    provider TEXT NOT NULL,
    slot INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (run, provider, slot)
) STRICT, WITHOUT ROWID;

-- Providers that seem to have refused live mailboxes of a run.
CREATE TABLE mistake (
    run INTEGER NOT NULL REFERENCES run,
    provider TEXT NOT NULL,
    since REAL NOT NULL,
    PRIMARY KEY (run, provider)
) STRICT, WITHOUT ROWID;

-- When messages to addresses that had soft bounces were accepted.
CREATE TABLE reached (
    digest BLOB NOT NULL,
    run INTEGER NOT NULL REFERENCES run,
    at REAL NOT NULL,
    PRIMARY KEY (digest, run)
) STRICT, WITHOUT ROWID;

-- The list.  Reasons stand beside one another: to take a hard bounce back must not take an opt-out back.
CREATE TABLE entry (
    digest BLOB NOT NULL,
    scope TEXT NOT NULL,                -- a list's id; empty for all lists
    reason TEXT NOT NULL,
    key TEXT NOT NULL,                  -- Address.key or @domain, empty once erased
    since REAL NOT NULL,
    until REAL,                         -- NULL: for good
    event INTEGER,
    note TEXT NOT NULL,
    seq INTEGER NOT NULL,               -- of the change that made it
    PRIMARY KEY (digest, scope, reason)
) STRICT, WITHOUT ROWID;

-- Every change of the list, for ever.  `seq` is what a running send asks for.
CREATE TABLE change (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at REAL NOT NULL,
    digest BLOB,                        -- NULL for an import, which is one change
    what TEXT NOT NULL,                 -- added, removed, held, imported, erased
    reason TEXT NOT NULL,
    scope TEXT NOT NULL,
    why TEXT NOT NULL,
    who TEXT NOT NULL
) STRICT;
CREATE INDEX change_of_address ON change (digest, seq);

-- When mail that came back was last read to its end, by the place it was read from.
CREATE TABLE intake (
    source TEXT PRIMARY KEY,
    is_pushed INTEGER NOT NULL,         -- a mail server or a service hands it over: silence says nothing
    at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- How far each mailbox was read.
CREATE TABLE place (
    source TEXT PRIMARY KEY,
    uidvalidity INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    at REAL NOT NULL
) STRICT, WITHOUT ROWID;
