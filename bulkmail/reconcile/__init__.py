"""Where a message in doubt may be found: mail folders and the logs of servers."""
