"""Whether a server answers as rightly as another: cases with known answers, and texts that should be the same."""
