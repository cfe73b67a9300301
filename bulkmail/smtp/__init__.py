"""The line to the relay: one session, opened by aiosmtplib, on which our own transactions run."""
