"""The command line of AdaFV: flags, streams, exit codes. The library itself is `adafv`."""
