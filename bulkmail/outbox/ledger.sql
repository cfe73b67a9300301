-- What an account has written to lately, shared by all runs on this machine.  Times are wall-clock seconds.

-- Recipients that count, by the end of the ten seconds in which they went.
CREATE TABLE spent (at INTEGER PRIMARY KEY, count INTEGER NOT NULL) STRICT;

-- Recipients that a run may still write to until `until`; they count as if they went at that moment.
CREATE TABLE reserved (id INTEGER PRIMARY KEY AUTOINCREMENT, until REAL NOT NULL, count INTEGER NOT NULL) STRICT;

-- The account is paused: its provider said that a quota is used up.
CREATE TABLE pause (id INTEGER PRIMARY KEY CHECK (id = 1), until REAL NOT NULL, why TEXT NOT NULL) STRICT;

-- When the first message of a campaign with a ramp was promised.
CREATE TABLE ramp (campaign TEXT PRIMARY KEY, began_at REAL NOT NULL) STRICT, WITHOUT ROWID;
