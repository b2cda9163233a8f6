"""The command that a shell is told to run."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from string import Template

_SHELLS = frozenset({"sh", "bash", "dash", "ash"})


def without_shell(argv: Sequence[str], env: Mapping[str, str]) -> Sequence[str]:
    """A command line without a shell around it, the shell's variables filled in."""
    shell = os.path.basename(argv[0]) in _SHELLS if argv else False
    option = next((at for at, word in enumerate(argv) if re.fullmatch(r"-\w*c", word)), None)
    if not shell or option is None or option + 1 == len(argv):
        return argv
    script = argv[option + 1].replace("\\\n", " ")
    try:
        return shlex.split(Template(script).safe_substitute(env), comments=True)
    except ValueError:  # a quotation that does not end
        return argv
