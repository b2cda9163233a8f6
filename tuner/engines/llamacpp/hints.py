"""What is known of llama.cpp's settings before any launch, for the search."""

from tuner.engines.base import Hints

HINTS = Hints(
    weights={
        "parallel": 2.0,
        "n_gpu_layers": 2.0,
        # they decide what fits more than how fast it is
        "ctx_size": 0.3,
        "mmap": 0.1,
        "threads_http": 0.1,
    },
    slow={"n_gpu_layers": 0},
)
