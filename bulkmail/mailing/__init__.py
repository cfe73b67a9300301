"""The one room that knows the whole: list and letter into the outbox, gate, engine, report."""
