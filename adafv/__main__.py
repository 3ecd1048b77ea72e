"""`python -m adafv` is `adafv`, whose command line the library itself does not know."""

import runpy

if __name__ == "__main__":
    runpy.run_module("adafv_cli", run_name="__main__", alter_sys=True)
