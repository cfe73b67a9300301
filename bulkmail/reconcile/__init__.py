"""Where a letter that nobody answered for may be seen after all: mail folders and the logs of servers."""
