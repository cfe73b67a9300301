"""The run itself: from an outbox and a relay to settled deliveries."""
