"""Attacks on the package: hostile folders, kills at any moment, damaged files.

    python tests/campaign fuzz      # mutated files and folders through every reader
    python tests/campaign kill      # commands killed and stopped at random moments
    python tests/campaign damage    # every file of every folder damaged in five ways

Each prints a table and puts it into docs/reliability.md. Every trial follows from its
number, so that one can be run alone: `--first=1234 --trials=1`.
"""
