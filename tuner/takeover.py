"""Where the watchdog of a take-over that was started by version 0.1 still looks; goes with the next release."""

import runpy

runpy.run_module("tuner.site.takeover", run_name="__main__")
