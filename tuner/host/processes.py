"""Which processes live: an id alone is no proof, since the kernel gives it to others."""

import psutil


def birth(pid: int) -> float:
    """When a process was created, seconds since the epoch as the kernel counts it."""
    return psutil.Process(pid).create_time()


def alive(pid: int, created: float | None = None) -> bool:
    """Whether the process of this id (the one that was created then) still runs; a zombie does not."""
    try:
        process = psutil.Process(pid)
        same = created is None or abs(process.create_time() - created) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
