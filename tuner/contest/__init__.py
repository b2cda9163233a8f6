"""A study over two engines: one budget, a study of its own for each, and a proof between the best of both."""
