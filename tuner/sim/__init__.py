"""A simulated vLLM: its command line, log lines, memory, scheduler and HTTP API, without a GPU.

Pure and without sleeping: ``settings.resolve`` (vLLM's flags and environment to settings), ``memory.plan`` (what fits,
or which start-up failure comes first), ``roofline.Roofline`` (how long a step takes), ``scheduler.Scheduler``
(continuous batching) and ``offline.measure`` (all of them together on a workload). ``cli.main`` serves the same
engine over HTTP behind vLLM's own command line.
"""
