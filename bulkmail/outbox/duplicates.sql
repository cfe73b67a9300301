-- Runs once, after loaded.sql and in its transaction, unless rows may share an address.

-- Duplicates are found by sorting the keys once: keeping a unique index of scattered keys while loading dirties a page
-- a row and cost 20 µs to 35 µs a row, this 1.2.
CREATE TEMP TABLE repeated (key TEXT PRIMARY KEY, first INTEGER NOT NULL) WITHOUT ROWID;

INSERT INTO repeated
SELECT key, min(number) FROM row WHERE key IS NOT NULL GROUP BY key HAVING count(*) > 1;

UPDATE delivery
SET status = 'duplicate', due_at = NULL, reason = (
    SELECT 'same address as ' || earlier.source || ':' || earlier.line
    FROM row AS mine
    JOIN repeated ON repeated.key = mine.key
    JOIN row AS earlier ON earlier.number = repeated.first
    WHERE mine.number = delivery.row
)
WHERE row IN (
    SELECT number FROM row JOIN repeated ON repeated.key = row.key WHERE number > first
);

DROP TABLE repeated;
