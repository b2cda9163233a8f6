"""Watching a server: until its model answers, and for as long as it is measured.

Health, log and life are looked at together, twenty times a second: a server that is dead after 8 s costs 8 s, and a log
line that decides its fate ends the wait at once.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tuner.engines.base import Engine, LogReader, Phase
from tuner.engines.causes import Cause, Diagnosis, Fate, error_of
from tuner.engines.effective import Witness
from tuner.engines.log.sieve import parted
from tuner.engines.tolerance import Tolerance
from tuner.errors import MeasurementError, NotReady, PortTaken, RequestsRefused, TrialError
from tuner.fetch import Answer, fetch
from tuner.launchers.base import Server
from tuner.load.endpoints.endpoint import Endpoint
from tuner.load.payload import greeting
from tuner.load.refusals import fix_of, is_refusal
from tuner.records.record import PhaseSpan
from tuner.secrets import of_headers, redact

_POLL_S = 0.05
_WITNESS_TIMEOUT_S = 60.0
"""vLLM collects its whole environment for `/server_info`, which takes many seconds on a busy machine."""
_PAUSE_S, _LONGEST_S = 0.2, 0.6
"""A log that says nothing for so long has said what there is to say; and how long that is waited for."""
_HEALTH_EVERY_S = 0.25
_AFTERMATH_S = 3.0
_DISTURBANCE_LENGTH = 300
"""What is kept of a line that tells of a compiled kernel: its beginning names the kernel, the rest is two pages."""
_UNDECIDED = (Cause.UNKNOWN, Cause.HEALTHY, Cause.DEGRADED)
_STILL_RUNS = Fate(running=True)
_NO_SUCH_PATH = (404, 405, 501)
_PROBE_TIMEOUT_S = 600.0
"""The model's first answer may wait for just-in-time compilation; the phase's own limit ends it earlier."""


class Stopwatch:
    """Which phase a trial is in, since when, and what the earlier ones took."""

    def __init__(self, on_phase: Callable[[Phase], None]) -> None:
        self.phase = Phase.STARTING
        self._on_phase = on_phase
        self._since_ns = time.perf_counter_ns()
        self._seconds: dict[Phase, float] = {}
        on_phase(self.phase)

    def enter(self, phase: Phase) -> None:
        """The next phase begins now; entering the current one changes nothing."""
        if phase is self.phase:
            return
        self._account()
        self.phase = phase
        self._on_phase(phase)

    def spans(self) -> tuple[PhaseSpan, ...]:
        """What each phase took so far, in the order of their first entering; a phase entered twice counts once."""
        self._account()
        return tuple(PhaseSpan(phase, seconds) for phase, seconds in self._seconds.items())

    def _account(self) -> None:
        now_ns = time.perf_counter_ns()
        self._seconds[self.phase] = self._seconds.get(self.phase, 0.0) + (now_ns - self._since_ns) / 1e9
        self._since_ns = now_ns


@dataclass
class Watch:
    """Looks after one server.

    Attributes:
        server: The server.
        engine: Who can read its log.
        stopwatch: Told of the phases that the log announces.
        tolerance: Which silent degradations may stand in the log.
        serving: Whether start-up is over, so that the log announces no more phases.
    """

    server: Server
    engine: Engine
    stopwatch: Stopwatch
    tolerance: Tolerance = field(default_factory=Tolerance)
    serving: bool = False
    _progress: "_Progress" = field(default_factory=lambda: _Progress())
    _disturbed_by: str | None = None
    _reader: LogReader = field(init=False)

    def __post_init__(self) -> None:
        self._reader = self.engine.reader()

    def check(self) -> None:
        """Read what the log says, a megabyte at most, and whether the server lives.

        Raises:
            TrialError: Of the kind that the evidence shows, at the line that decides it.
        """
        self._read()
        if not self.server.life().running:
            raise self._ended()
        if self._decided():
            self._let_it_finish()
            if not self.server.life().running:
                raise self._ended()
            if diagnosis := self._decided():
                raise self._failure(diagnosis, diagnosis.line or str(diagnosis.cause))

    def catch_up(self) -> None:
        """Read all that the log holds by now.

        Raises:
            TrialError: As ``check`` has it.
        """
        for _ in range(self.server.log.unread):
            self.check()

    def _decided(self) -> Diagnosis | None:
        """What a server that still runs has said to be its end; whether it stalls is for the time limits to say."""
        diagnosis = self._reader.diagnose(_STILL_RUNS)
        undecided = diagnosis.cause in (*_UNDECIDED, Cause.STALLED) or self.tolerance.tolerates(diagnosis.cause)
        return None if undecided else diagnosis

    def _ended(self) -> TrialError:
        """The error of a server that is no more; its workers may still have something to say."""
        self._let_it_finish()
        while self.server.log.unread:
            self._read()
        self._follow(self.server.log.finish())
        life = self.server.life()
        diagnosis = self._reader.diagnose(Fate(exit_code=life.exit_code, oom_killed=life.oom_killed))
        said = None if diagnosis.cause in _UNDECIDED else diagnosis.line
        return self._failure(diagnosis, said or f"the server ended (exit status {life.exit_code})")

    def _let_it_finish(self) -> None:
        """Read on until the log pauses: the line that says why may follow those that say what became of it."""
        begun = quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < _PAUSE_S and time.monotonic() - begun < _LONGEST_S:
            time.sleep(_POLL_S)
            if self._read():
                quiet_since = time.monotonic()

    def _read(self) -> list[str]:
        fresh = self.server.log.read_new()
        self._follow(fresh)
        return fresh

    def linger(self) -> None:
        """After failed requests, give the server a moment to say why: its log is a little slower than its streams.

        Raises:
            TrialError: Of the kind that the evidence shows, if it shows one.
        """
        deadline = time.monotonic() + _AFTERMATH_S
        while time.monotonic() < deadline:
            self.check()
            time.sleep(_POLL_S)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """A measurement that fails in this block is explained by the server's own end, if it ended."""
        try:
            yield
        except MeasurementError:
            self.linger()
            raise

    def disturbed(self) -> str | None:
        """The line, new since the last call, by which what is measured now is not the server's usual speed."""
        self.check()
        line, self._disturbed_by = self._disturbed_by, None
        return line

    def silent_s(self) -> float:
        """How long the log has shown no progress."""
        return self._progress.silent_s()

    def stalled(self) -> TrialError:
        """The error of a phase that passed its limit."""
        phase = self.stopwatch.phase
        diagnosis = self._reader.diagnose(Fate(running=True, stalled_phase=phase))
        return self._failure(diagnosis, f"no progress for {self.silent_s():.0f} s while {phase}")

    def _follow(self, fresh: list[str]) -> None:
        for before, line in parted(fresh, self.engine.telling(fresh)):
            self._reader.skip(before)
            if line is not None:
                self._heed(line)
        for line in fresh:
            self._progress.saw(line)

    def _heed(self, line: str) -> None:
        self._reader.read(line)
        if not self.serving and (phase := self.engine.phase(line)):
            self.stopwatch.enter(phase)
        if self.engine.disturbs(line):
            self._disturbed_by = line[:_DISTURBANCE_LENGTH]

    def _failure(self, diagnosis: Diagnosis, message: str) -> TrialError:
        where = f"under load: {message}" if self.serving else message
        return error_of(diagnosis, where) or MeasurementError(where, cause=str(diagnosis.cause), line=diagnosis.line)


class _Progress:
    """Whether a log moves on; a line that only repeats an earlier one is no progress."""

    _TIME = re.compile(r"\d\d-\d\d \d\d:\d\d:\d\d|\d+:\d\d")
    _OURS = '"GET /health'
    _REMEMBERED = 100_000

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._last_s = time.monotonic()

    def saw(self, line: str) -> None:
        key = hash(self._TIME.sub("", line))
        if key in self._seen or self._OURS in line:
            return
        if len(self._seen) >= self._REMEMBERED:
            self._seen.clear()
        self._seen.add(key)
        self._last_s = time.monotonic()

    def silent_s(self) -> float:
        return time.monotonic() - self._last_s


@dataclass(frozen=True, slots=True)
class Probe:
    """How to ask a server whether it is ready, and whether it is the one we launched.

    Attributes:
        url: Its base URL.
        headers: Headers to send.
        model: The model's name to ask for.
        alias: The name that only this launch answers to; ``None`` for a server that we did not launch.
        info_path: Where it tells its configuration; ``None`` if it does not.
        endpoint: Where the load will go.
    """

    url: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    alias: str | None = None
    info_path: str | None = None
    endpoint: Endpoint = Endpoint.CHAT

    def healthy(self) -> bool:
        """Whether ``/health`` says 200."""
        try:
            return fetch(f"{self.url}/health", self.headers, within_s=2).status == 200
        except httpx.HTTPError:
            return False

    def answer(self) -> int | None:
        """Have the model answer one request; returns the context length that the server says it has, in tokens.

        Raises:
            PortTaken: Another server answers at this URL.
            RequestsRefused: It wants a key, or does not know the model.
            NotReady: The model does not answer otherwise.
            MeasurementError: The connection broke before it had answered.
        """
        try:
            reply = fetch(f"{self.url}/v1/models", self.headers, within_s=_PROBE_TIMEOUT_S)
            if is_refusal(reply.status):
                raise self._refused(reply, "/v1/models")
            listed = reply.json().get("data", [])
            self._identify([str(model.get("id")) for model in listed])
            self._ask()
            return next((model.get("max_model_len") for model in listed), None)
        except httpx.HTTPError as error:
            raise MeasurementError(f"the first request broke off: {error!r}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise NotReady(f"{self.url}/v1/models lists no models: what answers there is no model server") from error

    def witness(self, log: Sequence[str]) -> Witness:
        """What the running server says of itself, as far as it has the endpoints for it."""
        info = self._text(self.info_path) if self.info_path else None
        return Witness(log, server_info=info, metrics=self._text("/metrics"))

    def _text(self, path: str) -> str | None:
        try:
            reply = fetch(f"{self.url}{path}", self.headers, within_s=_WITNESS_TIMEOUT_S)
        except httpx.HTTPError:
            return None
        return reply.text if reply.status == 200 else None

    def _identify(self, names: list[str]) -> None:
        """An orphan of an earlier launch, or a stranger, does not know the name that we gave to this one."""
        if self.alias is not None and self.alias not in names:
            raise PortTaken(
                f"another server answers at {self.url}: it serves {', '.join(names)}, not our {self.alias}",
                cause=str(Cause.PORT_IN_USE),
                fix="end it, or run `tuner clean`",
            )

    def _ask(self) -> None:
        path, name = self.endpoint.path, self.alias or self.model
        headers = {**self.headers, **self.endpoint.headers}
        body = greeting(self.endpoint, name)
        reply = fetch(f"{self.url}{path}", headers, within_s=_PROBE_TIMEOUT_S, json_body=body)
        if reply.status in _NO_SUCH_PATH and name not in reply.text:  # an unknown model is named
            raise self._without(path, reply.status)
        if is_refusal(reply.status):
            raise self._refused(reply, path)
        if reply.status != 200:
            raise NotReady(f"the model does not answer (HTTP {reply.status}): {self._said(reply)}")

    def _without(self, path: str, status: int) -> RequestsRefused:
        others = " and ".join(f"workload.endpoint={other}" for other in Endpoint if other is not self.endpoint)
        message = f"the server has no {path} (HTTP {status})"
        fix = f"measure through another endpoint ({others}), or upgrade the server: vLLM has /v1/messages since 0.11.1"
        return RequestsRefused(message, cause=RequestsRefused.CAUSE, fix=fix)

    def _refused(self, reply: Answer, path: str) -> RequestsRefused:
        status = reply.status
        lacks = "it wants a key, and the one that was sent is none or not the right one" if status in (401, 403) else ""
        message = f"the server refuses {path} (HTTP {status}): {lacks or self._said(reply)}"
        return RequestsRefused(message, cause=RequestsRefused.CAUSE, fix=fix_of(status))

    def _said(self, reply: Answer) -> str:
        """The beginning of an answer; a server may quote the token that it refuses."""
        return redact(reply.text, of_headers(self.headers))[:300]


def wait_until_ready(watch: Watch, probe: Probe, limits_s: Mapping[Phase, float]) -> int | None:
    """Return when the model has answered a request, with the context length that the server says it has.

    Args:
        watch: Looks after the server; its stopwatch shows the phases.
        probe: How to ask.
        limits_s: For each start-up phase the longest time without progress.

    Raises:
        TrialError: The server failed, stalled, or is not the one that was launched.
    """
    asking = _Asking(probe)
    try:
        while not asking.answered:
            watch.check()
            if watch.silent_s() > limits_s[watch.stopwatch.phase]:
                raise watch.stalled()
            if not watch.server.log.unread:
                time.sleep(_POLL_S)
        watch.catch_up()
    finally:
        asking.close()
    watch.serving = True
    return asking.context_tokens


class _Asking:
    """Asks the server in parallel to the loop that watches it, since its first answer may take minutes."""

    def __init__(self, probe: Probe) -> None:
        self.context_tokens: int | None = None
        self._probe = probe
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._reply: Future[bool] | None = None
        self._next_s = 0.0

    @property
    def answered(self) -> bool:
        """Whether the model has answered; asks again, if it is time to, when it has not."""
        if self._reply and self._reply.done():
            if self._reply.result():
                return True
            self._reply = None
        if self._reply is None and time.monotonic() >= self._next_s:
            self._reply = self._pool.submit(self._ask)
            self._next_s = time.monotonic() + _HEALTH_EVERY_S
        return False

    def close(self) -> None:
        """Stop asking; a question under way ends with the server."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self) -> bool:
        if not self._probe.healthy():
            return False
        self.context_tokens = self._probe.answer()
        return True
