"""What is wrong with a mailing, found before its first byte leaves."""
