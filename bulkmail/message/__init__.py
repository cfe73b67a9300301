"""Letters: from a campaign and a row of the list to the octets of one message."""
