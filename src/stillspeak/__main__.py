"""``python -m stillspeak`` is the command line."""

from stillspeak.cli.app import main

main()
