"""The durable truth about a run: one SQLite file that says of every row what has become of it."""
