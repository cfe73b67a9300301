"""Where a message that nobody answered for may be seen after all: mail folders and the logs of servers."""
