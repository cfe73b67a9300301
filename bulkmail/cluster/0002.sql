-- What a campaign needs to be sent by any worker: its settings, its queues, shared messages, and who works on it.

ALTER TABLE campaign
    ADD COLUMN is_rehearsal boolean NOT NULL DEFAULT false,
    ADD COLUMN allow_duplicates boolean NOT NULL DEFAULT false,
    ADD COLUMN version text NOT NULL DEFAULT '',  -- of the bulkmail whose composer makes the messages
    ADD COLUMN started_at timestamptz,
    ADD COLUMN ended_at timestamptz;

CREATE TABLE setting (
    campaign integer NOT NULL REFERENCES campaign ON DELETE CASCADE,
    key text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (campaign, key)
);

-- Rows that share the message of an earlier one.
CREATE TABLE part (
    campaign integer NOT NULL REFERENCES campaign ON DELETE CASCADE,
    message bigint NOT NULL,
    row bigint NOT NULL,
    PRIMARY KEY (campaign, row)
);
CREATE INDEX part_message ON part (campaign, message);

-- Ids are in the order of the input; a shard is one queue's part of a range of them.
ALTER TABLE delivery ADD COLUMN queue integer NOT NULL DEFAULT 0;

-- Which sessions send from which campaign.
CREATE TABLE work (
    session bigint NOT NULL REFERENCES session,
    campaign integer NOT NULL REFERENCES campaign ON DELETE CASCADE,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (session, campaign)
);
CREATE INDEX work_campaign ON work (campaign);

ALTER TABLE session ADD COLUMN opened_at timestamptz NOT NULL DEFAULT clock_timestamp();
