"""Where a message that no one answered for may be seen after all: mail folders and the logs of servers."""
