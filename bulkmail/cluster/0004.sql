-- What all workers share: rates, quotas, and how relays do.

-- Rates by key, booked ahead (GCRA).  `waiter` was refused last and goes before the others until `waiter_until`.
CREATE TABLE pace (
    key text PRIMARY KEY,
    tat timestamptz NOT NULL DEFAULT 'epoch',
    waiter bigint,
    waiter_until timestamptz NOT NULL DEFAULT 'epoch'
) WITH (fillfactor = 10);

-- Books at most `wanted` slots of `key`, none later than `horizon` seconds from now: the seconds until each of them.
-- None can be had: one negative number, whose amount is the seconds until it is worth asking again.
CREATE FUNCTION grant_slots(
    asked_key text, asker bigint, per_second float8, burst integer, wanted integer, horizon float8
) RETURNS float8[] LANGUAGE plpgsql AS $$
DECLARE
    held pace%ROWTYPE;
    moment timestamptz;
    gap interval := make_interval(secs => 1 / per_second);
    ahead interval := make_interval(secs => (burst - 1) / per_second);
    slot timestamptz;
    found float8[] := '{}';
BEGIN
    INSERT INTO pace (key) VALUES (asked_key) ON CONFLICT DO NOTHING;
    SELECT * INTO held FROM pace WHERE key = asked_key FOR UPDATE;
    moment := clock_timestamp();
    slot := greatest(moment, held.tat - ahead);
    IF held.waiter <> asker AND held.waiter_until > moment THEN
        RETURN ARRAY[-extract(epoch FROM slot + gap - moment)::float8];
    END IF;
    IF slot > moment + make_interval(secs => horizon) THEN
        UPDATE pace SET waiter = asker, waiter_until = slot + make_interval(secs => 0.3) WHERE key = asked_key;
        RETURN ARRAY[-extract(epoch FROM slot - make_interval(secs => horizon) - moment)::float8];
    END IF;
    WHILE coalesce(array_length(found, 1), 0) < wanted AND slot <= moment + make_interval(secs => horizon) LOOP
        found := found || extract(epoch FROM slot - moment)::float8;
        held.tat := greatest(held.tat, moment) + gap;
        slot := greatest(moment, held.tat - ahead);
    END LOOP;
    UPDATE pace SET tat = held.tat, waiter = NULL, waiter_until = 'epoch' WHERE key = asked_key;
    RETURN found;
END
$$;

-- How openings with a relay go, over all workers: while it fails, or is not known yet, one at a time tries.
CREATE TABLE relay (
    key text PRIMARY KEY,
    is_proven boolean NOT NULL DEFAULT false,
    failures integer NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL DEFAULT 'epoch'
) WITH (fillfactor = 20);

-- The quota ledger of an account; times are epoch seconds of the store's clock.
CREATE TABLE account (key text PRIMARY KEY);
CREATE TABLE spent (
    account text NOT NULL REFERENCES account,
    at bigint NOT NULL,
    count bigint NOT NULL,
    PRIMARY KEY (account, at)
);
CREATE TABLE reserved (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account text NOT NULL REFERENCES account,
    until double precision NOT NULL,
    count bigint NOT NULL
);
CREATE INDEX reserved_account ON reserved (account);
CREATE TABLE pause (
    account text PRIMARY KEY REFERENCES account,
    until double precision NOT NULL,
    why text NOT NULL
);
CREATE TABLE ramp (
    account text NOT NULL REFERENCES account,
    campaign text NOT NULL,
    began_at double precision NOT NULL,
    PRIMARY KEY (account, campaign)
);
