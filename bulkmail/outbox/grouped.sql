-- Runs once, before loaded.sql and in its transaction, where rows are grouped.  Rows come in any order: each step sorts
-- once or goes through a table in its own order, so that a page is written once however the list is sorted.

CREATE INDEX delivery_row ON delivery (row);

CREATE TEMP TABLE message_of (key BLOB PRIMARY KEY, first INTEGER NOT NULL, fault TEXT) WITHOUT ROWID;

INSERT INTO message_of
SELECT key, min(row),
       CASE
           WHEN max(is_bad) THEN 'bad ' || min(CASE WHEN is_bad THEN row END)
           WHEN count(*) > 10000 THEN 'many ' || count(*)
           WHEN min(address) <> max(address) THEN 'address'
       END
FROM grouping GROUP BY key HAVING count(*) > 1;

INSERT INTO part
SELECT first, row FROM grouping JOIN message_of USING (key) WHERE fault IS NULL AND row > first ORDER BY first, row;

CREATE INDEX part_row ON part (row);

-- What follows looks at deliveries in their own order.
UPDATE delivery SET status = 'grouped', due_at = NULL
WHERE EXISTS (SELECT 1 FROM part WHERE part.row = delivery.row);

-- A message is not sent in part: where one of its rows cannot be used, none is.
UPDATE delivery
SET status = 'invalid', due_at = NULL, reason = (
    SELECT CASE
        WHEN fault = 'address' AND row.number = first THEN
            'other rows of the same message have another address'
        WHEN fault = 'address' THEN
            'has another address than ' || leading.source || ':' || leading.line || ', a row of the same message'
        WHEN fault LIKE 'many %' THEN
            'the message would have ' || substr(fault, 6) || ' rows; 10000 are allowed'
        ELSE
            'not sent in part: nothing can be sent for ' || bad.source || ':' || bad.line
            || ', a row of the same message: '
            || (SELECT own.reason FROM delivery AS own WHERE own.row = bad.number ORDER BY own.id LIMIT 1)
    END
    FROM grouping JOIN message_of USING (key) JOIN row ON row.number = grouping.row
    JOIN row AS leading ON leading.number = first
    LEFT JOIN row AS bad ON bad.number = CASE WHEN fault LIKE 'bad %' THEN CAST(substr(fault, 5) AS INTEGER) END
    WHERE grouping.row = delivery.row
)
WHERE status = 'pending' AND delivery.row IN (
    SELECT grouping.row FROM grouping JOIN message_of USING (key) WHERE fault IS NOT NULL
);

DROP TABLE message_of;

DELETE FROM grouping;
