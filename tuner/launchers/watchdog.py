"""Where a watchdog that was started by version 0.1 still looks; goes with the next release."""

import runpy

runpy.run_module("tuner.host.watchdog", run_name="__main__")
