"""The connection to a relay: opened, logged in, and the transactions on it."""
