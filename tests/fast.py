"""The demo in seconds: a fast clock, a tiny workload and three launches, without limits and without a proof."""

FAST = [
    "experiment=demo",
    "engine.clock_scale=40",
    "engine.launch_args.sim_clock_startup=400",
    "workload.prompt_tokens=64",
    "workload.output_tokens=16",
    "workload.requests=5",
    "workload.single_user={prompt_tokens: 32, output_tokens: 16, requests: 1}",
    "workload.ttft_prompt_tokens=[]",
    "workload.tool_call=false",
    "workload.warm_up={shortest_tokens: 16, longest_tokens: 64, max_rounds: 2}",
    # a tiny workload at a fast clock is noisy; what is tested with it is the loop
    "objective.limits=null",
    # what is screened live has tests of its own
    "search.live=off",
    "study.name=fast",
    "budget.trials=3",
    "study.confirm=0",
]
