"""Reading any engine's log: lines, the signs in them, and the diagnosis."""
