"""The one room that knows the whole: list and message into the outbox, checks, engine, report."""
