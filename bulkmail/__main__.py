"""`python -m bulkmail`: the command line without its console script."""

from bulkmail.cli import main

main(prog_name="python -m bulkmail")
