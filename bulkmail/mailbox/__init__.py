"""Where mail that comes back is read from: a folder on an IMAP server, a Maildir, an mbox file, standard input."""
