"""Will it fit? Every way to lay a model out on GPUs, also on those that one does not have, without a study."""

from collections.abc import Iterator, Sequence

from tuner.config import Config
from tuner.deriving import question_of
from tuner.engines.foresight import Foresight, Placement, Question
from tuner.premises import foresight_of, make_engine

_HEADS = ("layout", "GPUs", "weights GiB", "KV tokens", "requests", "tokens/s")


def placements_of(config: Config) -> tuple[Placement, ...]:
    """Each layout of a study's model on its hardware, as configured; none where the engine cannot tell."""
    if not config.launcher.starts_servers:
        return ()
    question = question_of(config)
    return tuple(_foresight(config, question).placements(question))


def _foresight(config: Config, question: Question) -> Foresight:
    return foresight_of(config, make_engine(config), question.hardware, may_ask=True)


def table(config: Config, placements: Sequence[Placement]) -> str:
    """For a person; empty where there is nothing to say."""
    if not placements:
        return "" if question_of(config).hardware.gpus else _NO_GPU
    lengths = {each.length for each in placements if each.length}
    context = f", a context of {max(lengths):,} tokens" if lengths else ""
    rows = [_HEADS, *map(_cells, placements)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = (_line(row, widths, refused) for row, refused in zip(rows, ["", *_reasons(placements)], strict=True))
    head = f"{config.model.id} on {config.hardware.name}{context}"
    return "\n".join([head, *lines, *_FOOT])


_NO_GPU = "layouts are for GPUs: hardware=h100x8, for instance, asks about cards that are not here"
_FOOT = (
    "weights: on the fullest GPU. KV tokens, requests: of all replicas, requests of the whole context at once.",
    "tokens/s: what one user gets at the most, if each token only read its weights at the card's full speed.",
)


def _cells(placement: Placement) -> tuple[str, ...]:
    return (
        placement.name,
        str(placement.gpus),
        _number(placement.weights_gib, ".1f"),
        _number(placement.kv_tokens, ",d"),
        _number(placement.requests, ".1f"),
        _number(placement.alone_tokens_per_s, ".0f"),
    )


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _reasons(placements: Sequence[Placement]) -> Iterator[str]:
    for each in placements:
        unknown = each.weights_gib is None
        yield f"no: {each.refused}" if each.refused else "memory is not predicted" if unknown else "fits"


def _line(row: Sequence[str], widths: Sequence[int], reason: str) -> str:
    first, *others = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"  {'  '.join(cells)}  {reason}".rstrip()
