"""What is sent to a server, how it is timed, and what the timings say.

Imports nothing: the load worker starts through here.
"""
