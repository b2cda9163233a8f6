"""``tuner`` with the toys in its registries: ``python -m tests.toys study start …``."""

from tests.toys.launcher import ToyLauncherConfig
from tuner.launchers.registry import LAUNCHERS

LAUNCHERS.append(ToyLauncherConfig)

if __name__ == "__main__":
    from tuner.cli import main

    main()
