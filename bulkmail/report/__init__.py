"""What became of every row: a reading of an outbox, as a summary, a table or one JSON object."""
