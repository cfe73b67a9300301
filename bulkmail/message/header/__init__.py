"""The header of a message: which fields it has, what the row says in them, and their bytes."""
