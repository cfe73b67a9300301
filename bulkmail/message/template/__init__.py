"""What a template may do, and what its author is told when something is wrong with it."""
