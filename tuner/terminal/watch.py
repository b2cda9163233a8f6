"""``tuner watch`` on a terminal: a table that grows, or a line for each stretch where there is none."""

from collections import deque
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tuner import words
from tuner.watch.holding import WatchState
from tuner.watch.stretch import MedianBucket, Stretch
from tuner.watch.watcher import WatchLine

_RECENT = 20
_STYLES = {WatchState.HOLDS: "green", WatchState.SLOWER: "red", WatchState.OTHER_TRAFFIC: "yellow"}
_TO = "\N{EN DASH}"


def show(lines: Iterable[WatchLine], console: Console) -> None:
    """Show them as they come."""
    if not console.is_terminal:
        for entry in lines:
            console.print(line(entry), highlight=False, soft_wrap=True)
        return
    recent: deque[WatchLine] = deque(maxlen=_RECENT)
    with Live(console=console, auto_refresh=False) as live:
        for entry in lines:
            recent.append(entry)
            live.update(_table(recent), refresh=True)
            if entry.conclusion:
                live.console.print(_conclusion(entry))


def line(entry: WatchLine) -> str:
    """One stretch in a line."""
    if entry.stretch is None or entry.judgement is None:
        return f"{entry.at}  {entry.note}"
    figures = ", ".join(f"{name} {value}" for name, value in _all_figures(entry))
    why = f" ({'; '.join(entry.judgement.why)})" if entry.judgement.why else ""
    then = f": {entry.conclusion}" if entry.conclusion else ""
    return f"{entry.at}  {figures}; {entry.judgement.state}{why}{then}"


def _conclusion(entry: WatchLine) -> Text:
    assert entry.judgement is not None
    return Text(f"{entry.at}  {entry.conclusion}", style=_STYLES.get(entry.judgement.state, ""))


def _table(lines: Iterable[WatchLine]) -> Table:
    table = Table(box=None, pad_edge=False)
    listed = list(lines)
    names = dict.fromkeys(name for each in listed for name, _ in _all_figures(each))
    for name in ("at", *names, ""):
        table.add_column(name)
    for each in listed:
        table.add_row(*_row(each, list(names)))
    return table


def _row(entry: WatchLine, names: list[str]) -> Iterator[Text]:
    yield Text(entry.at[11:19])
    figures = dict(_all_figures(entry))
    yield from (Text(figures.get(name, "")) for name in names)
    if entry.judgement is None:
        yield Text(entry.note or "", style="yellow")
        return
    why = f" ({'; '.join(entry.judgement.why)})" if entry.judgement.why else ""
    yield Text(f"{entry.judgement.state}{why}", style=_STYLES.get(entry.judgement.state, ""))


def _all_figures(entry: WatchLine) -> Iterator[tuple[str, str]]:
    if entry.stretch:
        yield from _figures(entry.stretch)
    if probe := entry.probe:
        times = (("TTFT", probe.ttft_p50_ms), ("TPOT", probe.tpot_p50_ms))
        known = " ".join(f"{name} {words.digits(value)} ms" for name, value in times if value is not None)
        yield "probe", known or f"failed: {probe.failed}" if probe.failed or known else "tells nothing"


def _figures(stretch: Stretch) -> Iterator[tuple[str, str]]:
    """What the server told, each with its name."""
    if stretch.answered is not None:
        yield "answered", f"{stretch.answered:,.0f}"
    if stretch.output_tokens_per_s is not None:
        yield "throughput", f"{words.digits(stretch.output_tokens_per_s)} tokens/s"
    yield from (
        (name, words.digits(value))
        for name, value in (("at once", stretch.users), ("waiting", stretch.waiting))
        if value is not None
    )
    yield from ((name, _between(each)) for name, each in _medians(stretch) if each)
    if stretch.tpot_ms is not None:
        yield "TPOT", f"{words.digits(stretch.tpot_ms)} ms"
    yield from (
        (name, words.percent(value))
        for name, value in (("KV cache", stretch.kv_usage), ("prefix hits", stretch.prefix_hit_rate))
        if value is not None
    )
    yield from ((name, value) for name, value in _rest(stretch) if value)


def _medians(stretch: Stretch) -> Iterator[tuple[str, MedianBucket | None]]:
    yield "TTFT p50", stretch.ttft_p50
    yield "ITL p50", stretch.itl_p50


def _between(found: MedianBucket) -> str:
    if found.high_ms is None:
        return f"over {words.digits(found.low_ms)} ms"
    return f"{words.digits(found.low_ms)}{_TO}{words.digits(found.high_ms)} ms"


def _rest(stretch: Stretch) -> Iterator[tuple[str, str]]:
    yield "preemptions", f"{stretch.preemptions:,.0f}" if stretch.preemptions else ""
    yield "power", f"{words.digits(stretch.power_w)} W" if stretch.power_w is not None else ""
    yield "GPU memory", f"{words.digits(stretch.memory_used_gib)} GiB" if stretch.memory_used_gib is not None else ""
