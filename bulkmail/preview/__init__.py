"""A message as people see it before it is sent: files, or text in a terminal."""
