"""How a study was made: what was measured and how, with which versions, on which machine, and how to do it again."""

from tuner import words
from tuner.load.wording import sending
from tuner.records.outcome import Outcome
from tuner.records.record import TrialRecord
from tuner.report.markup import Html, html, joined, table, tag
from tuner.study.provenance import Machine, StudyRun, runs_of

_SEARCHES = {
    "auto": "a Gaussian process of single effects and pairs",
    "gp": "a Gaussian process",
    "tpe": "TPE",
    "random": "at random",
    "grid": "every combination in turn",
}


def method(outcome: Outcome) -> Html:
    """What was asked and how it was measured, in sentences."""
    return joined(
        tag("p", sentence) for sentence in (_asked(outcome), _load(outcome), _search(outcome), _proof(outcome))
    )


def _asked(outcome: Outcome) -> str:
    objective = outcome.config.objective
    goals = " and ".join(
        f"{direction} {words.metric(name).label[0].lower()}{words.metric(name).label[1:]}"
        for name, direction in objective.goals.items()
    )
    if not objective.limits:
        return f"Asked: {goals}."
    limits = "; ".join(
        f"{words.metric(name).label} {'at most' if limit.max is not None else 'at least'} "
        f"{limit.max if limit.max is not None else limit.min:g}"
        + (" times the deployed configuration's" if limit.of == "baseline" else f" {words.metric(name).unit}")
        for name, limit in objective.limits.items()
    )
    return f"Asked: {goals}. Limits: {limits}. A configuration that misses one cannot win."


def _load(outcome: Outcome) -> str:
    load = outcome.config.workload
    alone, lengths = load.single_user, " and ".join(f"{length:,}" for length in load.ttft_prompt_tokens)
    sentences = (
        f"Load ({load.name}): {sending(load)};",
        f"then one user alone sends {alone.requests} of {alone.prompt_tokens:,} and {alone.output_tokens:,}.",
        f"Either lasts {load.min_duration_s:g} s at least, with more requests if need be."
        if load.min_duration_s
        else "",
        f"Prompts of {lengths} tokens are sent twice, uncached and cached." if lengths else "",
        "There is one tool call." if load.tool_call else "",
        "Every measurement has prompts of its own, after a warm-up that is not measured.",
        "Failed requests are counted and never averaged in.",
    )
    return " ".join(sentence for sentence in sentences if sentence)


def _search(outcome: Outcome) -> str:
    config = outcome.config
    size = "endlessly many" if config.space.size is None else f"{config.space.size:,}"
    kind, parameters = _SEARCHES[_kind(outcome)], len(config.space.params)
    return (
        f"Search: {kind}, seed {config.study.seed}, over {parameters} parameters with {size} combinations. "
        "The deployed configuration is trial 0. One that cannot run has no value; the search learns to avoid it."
    )


def _kind(outcome: Outcome) -> str:
    """What ``auto`` came to for several goals, by what was installed at the last run."""
    kind, runs = outcome.config.search.kind, runs_of(outcome.folder)
    if kind != "auto" or not runs or len(outcome.config.objective.goals) == 1:
        return kind
    return "gp" if "torch" in runs[-1].versions else "tpe"


def _proof(outcome: Outcome) -> str:
    most = outcome.config.study.confirm.max
    if not most:
        return "Proof: none was asked for (study.confirm.max=0)."
    return (
        f"Proof: the best and the deployed configuration are launched again in turns, in random order, up to {most} "
        "times each, until it is decided: log ratio of unpaired launches, a linear drift taken out, sequential with an "
        "error-spending rule. All proofs of this study together call something better that is not in about 2.5 % of "
        f"studies. A limit is kept only if its interval says so.{_noise(outcome)}"
    )


def _noise(outcome: Outcome) -> str:
    """What the search knows of the noise in what decides."""
    objective, told = outcome.config.objective, []
    for name in dict.fromkeys((*objective.goals, *objective.limits)):
        known, within = outcome.readings.scatter(name).noise, outcome.readings.within(name)
        parts = [f"{words.percent(known.sd)} between launches"] if known else []
        parts += [f"{words.percent(within)} within one"] if within else []
        if parts:
            told.append(f"{words.metric(name).short} {' and '.join(parts)}")
    return f" Noise in the search (standard deviation): {'; '.join(told)}." if told else ""


def origin(outcome: Outcome) -> Html:
    """Versions, machine and command."""
    runs = runs_of(outcome.folder)
    facts = [*_engine(outcome), *_versions(runs), *_machine(outcome, runs)]
    return joined([table(("", ""), facts, "facts"), *_deployed(outcome), _repeat(outcome, runs)])


def _engine(outcome: Outcome) -> list[tuple[str, str]]:
    record = _first_told(outcome)
    facts = record.facts if record else None
    if facts is None:
        return [("Engine", f"{outcome.config.engine.kind}, version not known")]
    rows = [("Engine", f"{outcome.config.engine.kind} {facts.engine_version or '(version not known)'}")]
    rows += [("Attention backend", facts.attention_backend)] if facts.attention_backend else []
    rows += [("Context length", f"{facts.max_model_len:,} tokens")] if facts.max_model_len else []
    return rows


def _first_told(outcome: Outcome) -> TrialRecord | None:
    """The baseline, or else the first server that said something of itself."""
    return outcome.baseline or next((record for record in outcome.records if record.facts), None)


def _deployed(outcome: Outcome) -> list[Html]:
    record = outcome.baseline or next(iter(outcome.records), None)
    if record is None:
        return []
    return [tag("p", "The deployed configuration was started with:"), tag("pre", words.command(record.argv))]


def _versions(runs: list[StudyRun]) -> list[tuple[str, str]]:
    if not runs:
        return [("Versions", "not recorded")]
    return [("Versions", ", ".join(f"{name} {version}" for name, version in runs[-1].versions.items()))]


def _machine(outcome: Outcome, runs: list[StudyRun]) -> list[tuple[str, str]]:
    memory = next((r.facts for r in outcome.records if r.facts and r.facts.total_gib), None)
    rows = [("Hardware", outcome.config.hardware.name)]
    if memory:
        rows.append(("GPU memory as the engine saw it", f"{memory.total_gib} GiB, {memory.free_gib} GiB free at start"))
    machines = list(dict.fromkeys(_host(run.machine) for run in runs))
    rows += [("Host" if n == 0 else "and then", host) for n, host in enumerate(machines)]
    return rows


def _host(machine: Machine) -> str:
    memory = f", {machine.memory_gib:g} GiB" if machine.memory_gib else ""
    gpus = "; ".join(machine.gpus)
    return f"{machine.cpu}, {machine.cores} cores{memory}; {machine.system}" + (f"; {gpus}" if gpus else "")


def _repeat(outcome: Outcome, runs: list[StudyRun]) -> Html:
    typed = next((run.command for run in runs if run.command), None)
    if typed is None:
        return tag("p", "The study was not begun from a command line; its whole configuration is in config.yaml.")
    return joined([tag("p", html("The same again, under another name:")), tag("pre", f"{typed} study.name=again")])
