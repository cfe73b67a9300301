"""What a template may do, and what its author reads when something is wrong with it."""
