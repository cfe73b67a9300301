"""The rehearsal: a real SMTP server on loopback, what it kept, and lines that need no server at all."""
