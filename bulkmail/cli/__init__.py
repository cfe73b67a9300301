"""The command line: `main` knows every command by name, and imports one only when it is used."""

from bulkmail.cli.program import Program

main = Program()
