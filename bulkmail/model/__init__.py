"""The pure core: frozen types and rules.  No I/O, no clock, no randomness, no await, no logging."""
