"""Whether one configuration is better than another: launches in turns, and a rule whose error rates are known.

The statistics of a verdict, and nothing else: no records, no servers. ``make bench-proof`` simulates what it promises.
"""
