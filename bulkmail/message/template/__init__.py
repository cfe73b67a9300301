"""What a template may do, and what its author is notified when something is wrong with it."""
