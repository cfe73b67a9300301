"""The pure core: frozen types and rules.  No I/O, no clock, no dice, no await, no logging."""
