-- One run of one campaign.  Times are wall-clock seconds.  Text never holds a lone surrogate.

-- One row, id 1: the run itself.
CREATE TABLE run (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    run_id TEXT NOT NULL,
    created_at REAL NOT NULL,
    allow_duplicates INTEGER NOT NULL,
    loaded_at REAL,                     -- set when every input row is here, in the transaction that finds the duplicates
    row_count INTEGER NOT NULL DEFAULT 0,
    started_at REAL,                    -- the first mark or outcome
    ended_at REAL,                      -- set when nothing was open any more
    recovered_at REAL,                  -- when a reopening last found rows that a crash had left in doubt
    recovered INTEGER NOT NULL DEFAULT 0        -- how many such rows in all
);

CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- At most one row: the campaign with everything in it, as MessagePack.
CREATE TABLE campaign (id INTEGER PRIMARY KEY CHECK (id = 1), fingerprint TEXT NOT NULL, content BLOB NOT NULL);

-- The input, never changed.  Numbers are dense from 1.
CREATE TABLE row (
    number INTEGER PRIMARY KEY,
    source TEXT NOT NULL,               -- the file as the user named it
    line INTEGER NOT NULL,
    address TEXT NOT NULL,              -- as it goes on the wire; empty for a row that cannot be sent to
    name TEXT NOT NULL,
    key TEXT,                           -- Address.key; only of rows that take part in the search for duplicates
    fields BLOB NOT NULL,               -- JSON
    content BLOB,                       -- a ready-made message; NULL when a template makes it
    reverse_path TEXT NOT NULL DEFAULT '',
    message_id TEXT NOT NULL DEFAULT ''
);

-- One forward path of one row, and how far it has come.  Ids are dense from 1 and grow with the row number, so that
-- the order of ids is the order of the input; most lists have exactly one delivery a row.
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    row INTEGER NOT NULL REFERENCES row,
    forward_path TEXT NOT NULL,
    queue INTEGER NOT NULL DEFAULT 0,    -- the engine's own division of the work; assigned again by each run
    status TEXT NOT NULL,
    due_at REAL,                        -- NULL unless sending goes on with it; 0 is at once
    ending_at REAL,                     -- the mark: since when the end of its message may be on the wire
    ending_relay TEXT NOT NULL DEFAULT '',      -- the relay it went to; empty where the run has only one
    in_doubt_before INTEGER NOT NULL DEFAULT 0, -- it was in doubt once: what is sent again must be the same octets
    attempts INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    first_at REAL,
    message_id TEXT NOT NULL DEFAULT '',
    digest BLOB,                        -- Message.digest of what was last marked
    reason TEXT NOT NULL DEFAULT '',    -- of a status that no try gave it
    last_attempt INTEGER REFERENCES attempt,    -- the last try, where the server's words are: written once, not twice
    CHECK ((due_at IS NOT NULL) = (status IN ('pending', 'deferred'))),
    CHECK (ending_at IS NULL OR due_at IS NOT NULL)
);

-- Rows that share the message of an earlier one (the campaign's group_by): `message` is the number of that row, whose
-- deliveries are the message's.  A sharing row's own deliveries are 'grouped' for ever, and never due.
CREATE TABLE part (message INTEGER NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (message, row)) WITHOUT ROWID;

-- While rows come in: what each row that takes part in the grouping is grouped by, as a digest.  Emptied when all are here.
CREATE TABLE grouping (
    row INTEGER PRIMARY KEY,
    key BLOB NOT NULL,
    address TEXT NOT NULL,              -- Address.key, where another column than the address decides
    is_bad INTEGER NOT NULL             -- nothing can be sent for this row, and so for none of its message
);

-- The journal of turns: marks, releases and acceptances that are not folded into the tables yet, as MessagePack, in the
-- order of the commits that wrote them.
CREATE TABLE turn (id INTEGER PRIMARY KEY, entries BLOB NOT NULL);

-- Every try, for ever.  Ids are dense from 1.
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY,
    delivery INTEGER NOT NULL REFERENCES delivery,
    at REAL NOT NULL,
    took REAL NOT NULL,
    relay TEXT NOT NULL,
    stage TEXT NOT NULL,
    code INTEGER,                       -- of a reply
    enhanced TEXT NOT NULL,
    text TEXT NOT NULL,                 -- the reply's, or what broke
    breakage TEXT,                      -- of a fault
    outcome TEXT NOT NULL,
    scope TEXT NOT NULL,
    reason TEXT NOT NULL,
    counts INTEGER NOT NULL
);
