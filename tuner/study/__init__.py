"""A study: its loop, what to run next, the plan, and how its parts are put together."""
