"""``python -m tuner.sim serve MODEL …``: the simulated engine as a program of its own."""

import sys

from tuner.sim.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
