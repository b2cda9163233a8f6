"""A profile for a person: what it changes, what that was measured to do, and what else was tried."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tuner import words
from tuner.engines.effective import Status
from tuner.export.decided import Reading, Tried
from tuner.export.profile import Profile, ProfileSettings
from tuner.records import verdict
from tuner.records.answers import told

_MOST = 20
"""Rows of what was tried; ``--json`` has all."""


def shown(profile: Profile) -> RenderableType:
    """The profile, laid out for a terminal."""
    parts = [_origin(profile), _changes(profile), _measured(profile), _tried(profile)]
    return Group(*[part for part in parts if part.row_count], Text(_sentence(profile), style="bold"))


def _sentence(profile: Profile) -> str:
    marked = "" if profile.verdict.deploy else " It is marked as not to be deployed without looking."
    return f"\n{profile.verdict.sentence}{marked}"


def _grid(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, show_header=bool(columns), header_style="dim")
    for name in columns or ("", ""):
        table.add_column(name, overflow="fold")
    return table


def _origin(profile: Profile) -> Table:
    table = _grid(f"profile of study {profile.study.name}, trial {profile.trial}")
    for name, text in _facts(profile):
        table.add_row(Text(name, style="dim"), Text(text))
    return table


def _facts(profile: Profile) -> Iterator[tuple[str, str]]:
    study, image, machine = profile.study, profile.image, profile.machine
    yield "engine", f"{profile.engine.kind} {profile.engine.version or '(version not known)'}"
    yield "model", profile.model + (f" at {profile.revision}" if profile.revision else "")
    if image:
        yield "image", f"{image.reference}, {image.digest or image.id}"
    if machine:
        yield "machine", "; ".join([machine.name, *machine.gpus, *([machine.system] if machine.system else [])])
    digest = f" ({study.workload_digest})" if study.workload_digest else ""
    yield "study", f"{study.trials} trials for {study.objective} under {study.workload}{digest}, seed {study.seed}"
    for line in told(profile.verdict.decision.answers) if profile.verdict.decision.answers else ():
        yield "answers", line
    if soaked := profile.verdict.decision.soak:
        yield "soak", soaked.told
    for each in profile.effective:
        if each.status in (Status.OVERRIDDEN, Status.NO_EFFECT):
            by = f", by {each.by}" if each.by else ""
            yield "runs otherwise", f"{each.name}: {each.status}, {words.value(each.effective)}{by}"


def _changes(profile: Profile) -> Table:
    table = _grid("\nwhat it changes", "setting", "deployed", "winner")
    if profile.deployed:
        old, new = _flat(profile.deployed), _flat(ProfileSettings(args=profile.args, env=profile.env))
        for name in dict.fromkeys((*old, *new)):
            if old.get(name) != new.get(name):
                table.add_row(name, words.value(old.get(name)), words.value(new.get(name)))
    return table


def _flat(settings: ProfileSettings) -> Mapping[str, JsonValue]:
    return {**settings.args, **settings.env}


def _measured(profile: Profile) -> Table:
    table = _grid("\nwhat was measured, over the relaunches [95 %]", "metric", "deployed", "winner", "change", "")
    decision = profile.verdict.decision
    for name, both in profile.measured.items():
        effect, bound = decision.effect(name), decision.limits.get(name)
        change = verdict.changed(name, effect).removeprefix(words.metric(name).short).strip() if effect else ""
        kept = "" if bound is None else "limit kept" if bound.kept else "limit not shown"
        table.add_row(words.metric(name).short, _said(name, both.baseline), _said(name, both.winner), change, kept)
    return table


def _said(name: str, reading: Reading) -> str:
    if reading.low is None or reading.high is None:
        return words.metric(name).said(reading.mean)
    return f"{words.metric(name).said(reading.mean)} [{words.digits(reading.low)}, {words.digits(reading.high)}]"


def _tried(profile: Profile) -> Table:
    more = len(profile.tried) - _MOST
    title = f"what else was tried{f' ({_MOST} of {len(profile.tried)})' if more > 0 else ''}"
    table = _grid(f"\n{title}", "trial", "it read", "set", "and was rejected for")
    for each in sorted(profile.tried, key=lambda each: -(each.gain if each.gain is not None else -1.0))[:_MOST]:
        settings = ", ".join(f"{name}={words.brief(value)}" for name, value in each.changes.items())
        table.add_row(str(each.trial), _read(each), settings, words.cut(words.unprefixed(each.why), 120))
    return table


def _read(tried: Tried) -> str:
    return words.percent(tried.gain, sign=True) if tried.gain is not None else str(tried.ending)
