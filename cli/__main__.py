"""`python -m cli`: the same as `labelspace`."""

from cli.main import main

main()
