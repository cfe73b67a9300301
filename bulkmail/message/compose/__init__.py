"""From a campaign and a row of the list to the bytes of one message."""
