-- Times of the store are its own clock's; `first_at` is the message's Date, wall-clock seconds to the last bit, because a
-- resend must be the same message.

CREATE TABLE campaign (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    run_id text NOT NULL,
    state text NOT NULL DEFAULT 'loading'
        CHECK (state IN ('loading', 'canary', 'sending', 'stopped', 'cancelled', 'done')),
    why text NOT NULL DEFAULT '',
    fingerprint text NOT NULL DEFAULT '',
    content bytea NOT NULL DEFAULT '',
    rows bigint NOT NULL DEFAULT 0,
    eligible bigint NOT NULL DEFAULT 0,
    has_copies boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- One worker process from one lease to its loss.  The id is lease and fence and is never used again.
CREATE TABLE session (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    lease_until timestamptz NOT NULL,
    ended_at timestamptz
) WITH (fillfactor = 20);

-- Consecutive deliveries of one queue: what a session holds.
CREATE TABLE shard (
    campaign integer NOT NULL REFERENCES campaign ON DELETE CASCADE,
    id integer NOT NULL,
    queue integer NOT NULL DEFAULT 0,
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    is_canary boolean NOT NULL DEFAULT false,
    holder bigint REFERENCES session,
    due_at timestamptz,  -- null: nothing is left to do
    PRIMARY KEY (campaign, id)
) WITH (fillfactor = 50);
CREATE INDEX shard_due ON shard (campaign, queue, due_at) WHERE holder IS NULL AND due_at IS NOT NULL;
CREATE INDEX shard_held ON shard (holder) WHERE holder IS NOT NULL;

CREATE TABLE row (
    campaign integer NOT NULL,
    number bigint NOT NULL,
    address text NOT NULL,
    name text NOT NULL,
    fields json NOT NULL,  -- not jsonb: the order of the columns is the list's
    source text NOT NULL,
    line bigint NOT NULL,
    PRIMARY KEY (campaign, number)
) PARTITION BY LIST (campaign);

-- Nothing but the key is indexed, so that marks and outcomes stay in their page.  Marks are found through the shards held.
CREATE TABLE delivery (
    campaign integer NOT NULL,
    id bigint NOT NULL,
    row_number bigint NOT NULL,
    forward_path text NOT NULL,
    is_copy boolean NOT NULL DEFAULT false,
    status text NOT NULL DEFAULT 'pending',
    due_at timestamptz,  -- epoch: at once
    attempts smallint NOT NULL DEFAULT 0,
    tries smallint NOT NULL DEFAULT 0,
    first_at double precision,
    marked_by bigint,
    marked_at timestamptz,
    marked_relay text NOT NULL DEFAULT '',
    in_doubt_before boolean NOT NULL DEFAULT false,
    digest bytea,
    message_id text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    PRIMARY KEY (campaign, id),
    CHECK ((due_at IS NOT NULL) = (status IN ('pending', 'deferred')))
) PARTITION BY LIST (campaign);

CREATE TABLE attempt (
    campaign integer NOT NULL,
    delivery bigint NOT NULL,
    try smallint NOT NULL,
    session bigint NOT NULL,
    at timestamptz NOT NULL,
    took real NOT NULL,
    relay text NOT NULL,
    stage text NOT NULL,
    code smallint,
    enhanced text NOT NULL,
    text text NOT NULL,
    breakage text,
    outcome text NOT NULL,
    scope text NOT NULL,
    reason text NOT NULL,
    counts boolean NOT NULL,
    PRIMARY KEY (campaign, delivery, try)
) PARTITION BY LIST (campaign);
