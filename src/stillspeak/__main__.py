"""``python -m stillspeak`` is the command line."""

from stillspeak.cli import main

main()
