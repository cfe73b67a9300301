-- Runs once, in one transaction, when every row is there.  The indices are built here because sorting once is several
-- times cheaper than keeping them while a million rows come in.

CREATE INDEX IF NOT EXISTS delivery_row ON delivery (row);

-- Holds what is left to do and nothing else: what is due in a queue is a look at one place, however long the list and
-- however much waits in the other queues.
CREATE INDEX delivery_due ON delivery (queue, due_at) WHERE due_at IS NOT NULL;

-- Holds as many entries as there are marks: a handful.
CREATE INDEX delivery_ending ON delivery (ending_at) WHERE ending_at IS NOT NULL;
