"""From a campaign and a row of the list to the bytes of one message, and what is read back from one."""
