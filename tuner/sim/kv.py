"""The paged KV cache: blocks by content hash, shared between requests, evicted oldest first."""

from collections.abc import Sequence


class BlockPool:
    """All blocks of the KV cache.

    A block is *held* (some request uses it), *idle* (nobody does, but its content may be hit again; evicted oldest
    first) or free. Held blocks whose content nobody else could hit are only counted.

    Args:
        blocks: How many there are.
        caching: Whether content outlives the request that computed it.
    """

    def __init__(self, blocks: int, *, caching: bool = True) -> None:
        self.blocks = blocks
        self.caching = caching
        self.anonymous = 0
        self._held: dict[int, int] = {}
        self._idle: dict[int, None] = {}

    @property
    def used(self) -> int:
        """Blocks that some request holds."""
        return len(self._held) + self.anonymous

    @property
    def available(self) -> int:
        """Blocks that can be had, by eviction too."""
        return self.blocks - self.used

    @property
    def cached(self) -> int:
        """Idle blocks that may still be hit."""
        return len(self._idle)

    def match(self, hashes: Sequence[int], limit: int) -> int:
        """How many leading blocks are cached, up to ``limit``."""
        held, idle, found = self._held, self._idle, 0
        if self.caching:
            for block in hashes[:limit]:
                if block not in held and block not in idle:
                    break
                found += 1
        return found

    def idle_among(self, hashes: Sequence[int]) -> int:
        """How many of these cached blocks nobody holds: taking them makes fewer available."""
        return sum(block not in self._held for block in hashes)

    def share(self, hashes: Sequence[int]) -> None:
        """Hold cached blocks once more."""
        held, idle = self._held, self._idle
        for block in hashes:
            if block in held:
                held[block] += 1
            else:
                del idle[block]
                held[block] = 1

    def take(self, count: int) -> None:
        """Hold ``count`` fresh blocks; the caller has checked ``available``."""
        free = self.blocks - self.used - len(self._idle)
        for _ in range(count - free):
            del self._idle[next(iter(self._idle))]
        self.anonymous += count

    def publish(self, hashes: Sequence[int]) -> list[int]:
        """Let others hit the content of held blocks; gives back those that nobody had published before."""
        if not self.caching:
            return []
        held, idle = self._held, self._idle
        fresh = [block for block in hashes if block not in held and block not in idle]
        for block in fresh:
            held[block] = 1
        self.anonymous -= len(fresh)
        return fresh

    def release(self, published: Sequence[int], anonymous: int) -> None:
        """Give up held blocks; published ones stay idle, the last of a prompt evicted first."""
        held = self._held
        for block in reversed(published):
            if held[block] == 1:
                del held[block]
                self._idle[block] = None
            else:
                held[block] -= 1
        self.anonymous -= anonymous

    def forget(self) -> None:
        """Drop all idle content."""
        self._idle.clear()
