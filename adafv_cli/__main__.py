"""`python -m adafv_cli` is `adafv`."""

from adafv_cli.app import main

main()
