"""What a start makes sure of before its first launch, for a plan: nothing is started, stopped, pulled or changed.

Each check refuses as the start itself would, or says what it had to leave open.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tuner import composing
from tuner.config import Config
from tuner.dashboard.storage import check_storage
from tuner.errors import ConfigError, TunerError
from tuner.foresight.preflight import Preflight, ground_of, impossible
from tuner.host.gpu import counts_energy
from tuner.host.leases import reserved, state_dir
from tuner.host.places import check_writable
from tuner.launchers.config import Check
from tuner.load.plan import SLACK_TOKENS
from tuner.load.trace import half
from tuner.premises import make_engine
from tuner.records.folder import StudyFolder
from tuner.records.outcome import Outcome
from tuner.site.gpus import check_there
from tuner.site.power import caps_power, check_power
from tuner.site.takeover import in_the_way
from tuner.study import resume
from tuner.study.proposals import search_of
from tuner.study.warm import sources_of


@dataclass(frozen=True, slots=True)
class Checks:
    """What came of the checks.

    Attributes:
        passed: What was found in order.
        unchecked: What cannot be known without starting something, and why.
        refused: What keeps the study from starting.
    """

    passed: tuple[str, ...]
    unchecked: tuple[str, ...]
    refused: tuple[TunerError, ...]


def examined(config: Config) -> Checks:
    """Run every check; one that refuses does not keep the others from being run."""
    passed, unchecked, refused = [], [], []
    for name, check in _checks(config).items():
        try:
            left_open = list(check(config))
        except TunerError as error:
            refused.append(error)
        else:
            unchecked += [f"{name}: {reason}" for reason in left_open]
            passed += [] if left_open else [name]
    return Checks(tuple(passed), tuple(unchecked), tuple(refused))


def check_prompts(config: Config) -> None:
    """Make sure that the deployment can take the requests that its goals and limits are measured by.

    Raises:
        ConfigError: They are longer than its ``max_model_len`` (the optional stages are skipped instead), or are
            recorded in a file that is no trace.
    """
    context, workload = config.model.args.get("max_model_len"), config.workload
    if workload.trace:
        half(workload.trace, held_out=False)
    if not isinstance(context, int):
        return
    needed = {
        "workload": sum(workload.longest),
        "workload.single_user": workload.single_user.prompt_tokens + workload.single_user.output_tokens,
    }
    for place, tokens in needed.items():
        if tokens + SLACK_TOKENS > context:
            said = (
                f"prompt and output take {tokens} tokens (+ {SLACK_TOKENS} slack), model.args.max_model_len={context}"
            )
            raise ConfigError(said, place=place, fix="shorten prompt_tokens or output_tokens, or raise max_model_len")


def check_energy(config: Config) -> None:
    """Make sure that energy is counted where it decides: the GPUs do it themselves, if they do.

    Raises:
        ConfigError: They do not.
    """
    if not _decides_energy(config):
        return
    gpus = config.hardware.gpus
    if config.hardware.simulated or not counts_energy(gpus):
        asked = f"GPU {', '.join(map(str, gpus))}" if gpus and not config.hardware.simulated else "this hardware"
        raise ConfigError(
            f"energy_per_token_j needs the energy counter of NVML (nvidia-ml-py, GPUs from Volta on): {asked} has none",
            place="objective",
            fix="name another goal or limit, such as cost_per_million_tokens with hardware.price_per_hour",
        )


def _decides_energy(config: Config) -> bool:
    return "energy_per_token_j" in config.objective.deciding.names


def _energy(config: Config) -> Iterator[str]:
    if config.gpus and not check_there(config.gpus):
        yield "no driver answers on this host"
        return
    check_energy(config)


def _resume(config: Config) -> Iterator[str]:
    folder = StudyFolder(config.study.path)
    if (holder := folder.holder()) is not None:
        raise ConfigError(f"the study in {folder.path} is being run by process {holder}", fix="wait for it")
    if records := folder.records():
        old = composing.read(folder.config)
        if any(record.measurement for record in records):  # what never measured anything is set aside
            resume.changes(old, resume.carried(old, config))
        resume.check_budget(config, len(Outcome.of(folder).launched))
    yield from ()


def check_kernels(config: Config) -> Iterator[str]:
    """Make sure that the folder of tuned kernels is there.

    Raises:
        ConfigError: It is not.
    """
    folder = config.engine.kernels
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder", place="engine.tuned_kernels", fix="correct the path")
    yield from ()


def check_places(config: Config) -> Iterator[str]:
    """Make sure that the study, and what tuner keeps of its launches, can be written; yields what it left open.

    Raises:
        InfrastructureError: One of the folders cannot be written to.
    """
    check_writable(config.study.path, place="study.folder", fix="choose a study.folder that can be written to")
    check_writable(state_dir(), place="TUNER_STATE_DIR", fix="set it to a folder that can be written to")
    yield from check_storage(StudyFolder(config.study.path), config.storage.url)


def _sources(config: Config) -> Iterator[str]:
    search_of(config, sources_of(config))
    yield from ()


def _gpus(config: Config) -> Iterator[str]:
    in_the_way(config.site, config.gpus)
    with reserved(config.gpus, f"a plan of {config.study.name}"):
        pass
    if config.gpus and not check_there(config.gpus):
        yield "no driver answers on this host"


def _flags(config: Config) -> Iterator[str]:
    if not config.launcher.starts_servers:
        return
    if not config.study.preflight:
        yield "study.preflight=false launches everything"
        return
    ground = ground_of(config, make_engine(config))
    if error := impossible(ground):
        raise error
    if doubt := Preflight(ground, ()).check(config.space.deployed(config.model.settings)):
        yield f"trial 0 is launched since it is deployed, but {doubt.message}"
    if not config.launcher.engine_here and config.engine.version is None:
        yield "the engine inside the image is asked for its flags at the start"
    elif ground.flags is None:
        yield "the engine does not say which it has"


def _prompts(config: Config) -> Iterator[str]:
    check_prompts(config)
    context = config.model.args.get("max_model_len")
    if not isinstance(context, int):
        yield "max_model_len is the engine's own"
        return
    for length in config.workload.ttft_prompt_tokens:
        if length + config.workload.ttft_output_tokens + SLACK_TOKENS > context:
            yield f"a prompt of {length} tokens does not fit in max_model_len={context} and is skipped"


def _checks(config: Config) -> Mapping[str, Check]:
    launchers = config.launcher.checks()
    own = {"folders": check_places, "resume": _resume, **launchers, "GPUs": _gpus, "flags": _flags, "prompts": _prompts}
    own |= {"tuned kernels": check_kernels} if config.engine.kernels else {}
    own |= {"power": check_power} if caps_power(config) else {}
    own |= {"energy": _energy} if _decides_energy(config) else {}
    return {**own, "earlier studies": _sources} if config.search.warm_from else own
