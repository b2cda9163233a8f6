"""What traffic a study measures with: the YAML of ``conf/workload``."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tuner.load import lengths
from tuner.load.endpoints.endpoint import Endpoint
from tuner.load.shapes import Agents, Arrivals, Documented, Length, Prefix, RequestClass, Saturation, Slo, Trace

_LONGEST = 6


class SingleUser(Documented):
    """One user alone, one request after the other: decode speed as that user feels it."""

    prompt_tokens: PositiveInt = 100
    """Length of each prompt, in tokens."""
    output_tokens: Annotated[int, Field(ge=2)] = 256
    """Tokens generated for each request, exactly. TPOT needs two at least."""
    requests: PositiveInt = 3
    """How many requests the sample has, at least."""


class WarmUpLimits(Documented):
    """How a fresh server is warmed up before anything is measured."""

    shortest_tokens: PositiveInt = 50
    """The shortest prompt, in tokens."""
    longest_tokens: PositiveInt = 50_000
    """The longest prompt, in tokens. What does not fit the context or the KV cache is left out, and said."""
    settle_tolerance: PositiveFloat = 0.15
    """TTFT has settled when a round's median differs from the round before by no more than this share of it."""
    max_rounds: Annotated[int, Field(ge=2)] = 5
    """Rounds after which measuring begins all the same, marked as not settled."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.shortest_tokens > self.longest_tokens:
            raise ValueError(f"shortest_tokens {self.shortest_tokens} is above longest_tokens {self.longest_tokens}")
        return self


class Workload(Documented):
    """The traffic of a measurement: what is sent, how much of it, and when its numbers would lie."""

    name: str
    """What it is called in records and reports."""
    endpoint: Endpoint = Endpoint.CHAT
    """Where requests go: OpenAI's ``chat`` completions, its plain ``completions``, or Anthropic's ``messages``, which
    Claude Code sends."""
    concurrency: PositiveInt | Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = 5
    """Users of the concurrent stage; each sends its next request when its last one is answered (closed loop). Of
    several numbers, ``[1, 5, 20]``, each is a stage of its own, and the last one is the concurrent stage."""
    arrivals: Arrivals | None = None
    """An open loop instead of users: requests are sent on schedule, whatever the server does."""
    trace: Trace | None = None
    """Recorded traffic instead of either, with its own arrivals and lengths."""
    agents: Agents | None = None
    """The users are agents: conversations of many requests, in place of requests that know nothing of each other."""
    prompts: Literal["text", "words"] = "text"
    """What prompts are made of: natural text and code, or words at random. Text needs a server that tells how it counts
    (``/tokenize``); where it does not, words are sent, and the record says so."""
    prompt_tokens: Length = 1000
    """Length of each prompt of the concurrent stage, in tokens: a number or a distribution."""
    output_tokens: Length = 256
    """Tokens generated for each request of the concurrent stage, exactly (``ignore_eos``); two at least. The endpoint
    ``messages`` has no word for that: there it is the most, and answers end where the model ends them."""
    prefix: Prefix | None = None
    """A beginning that the prompts of the concurrent stage share."""
    classes: tuple[RequestClass, ...] = ()
    """Several kinds of request in the concurrent stage, in place of the three above."""
    slo: Slo | None = None
    """What is promised of each request under load, such as ``{ttft_ms: 500, tpot_ms: 50}``: goodput is the share and
    the rate of those that keep all of it."""
    saturation: Saturation = Saturation()
    """How ``saturation_requests_per_s`` is searched for, where the objective names it."""
    requests: PositiveInt = 20
    """Requests in the sample of the concurrent stage, at least. Three rounds of the users are the fewest that have
    an interval."""
    min_duration_s: NonNegativeFloat = 10.0
    """How long the concurrent and the single user's stage measure at least, in the engine's own seconds: fresh requests
    of the same lengths follow until then, and the ramps at both ends come on top. 0 sends just ``requests``, and
    measures all of it, ramps included."""
    max_duration_s: PositiveFloat | None = None
    """How long they measure at most; by default six times ``min_duration_s``. Only the requests that a percentile of
    the objective needs (p95: 100, p99: 500) may take longer, up to ten times as long."""
    precision: PositiveFloat = 0.03
    """A stage measures until each goal of the objective is known this well: half the width of its 95 % interval, as a
    share of it."""
    limit_precision: PositiveFloat = 0.05
    """The same for the metrics that only have a limit to keep."""
    single_user: SingleUser = SingleUser()
    """One user alone."""
    ttft_prompt_tokens: tuple[PositiveInt, ...] = (5000, 30_000)
    """Prompt lengths, in tokens, whose TTFT is measured once with an empty and once with a filled prefix cache."""
    ttft_output_tokens: PositiveInt = 16
    """Tokens generated after each of them."""
    tool_call: bool = True
    """Whether to measure one tool call; the server needs a tool call parser."""
    warm_up: WarmUpLimits = WarmUpLimits()
    """What is sent before measuring."""
    temperature: Annotated[float, Field(ge=0)] = 0.7
    """Sampling temperature of all requests; 0 would spare the server its sampler."""
    request_timeout_s: PositiveFloat = 600.0
    """A request that is not complete after so many seconds has failed."""
    silence_timeout_s: PositiveFloat = 300.0
    """A request to which nothing has come for so many seconds has failed."""
    max_failed_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """With a greater share of failed requests there is no measurement. They are never part of a mean."""
    max_client_cpu_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Above this share of one core in the concurrent stage, the load client is what was measured: no measurement."""
    max_loop_lag_ms: PositiveFloat = 50.0
    """A stage in which the load client stamped later than this (99th percentile over time, in milliseconds of wall), or
    sent later than scheduled, has no numbers; if it is the concurrent stage, there is no measurement."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.requests < max(self.rungs):
            raise ValueError(f"{self.requests} requests never reach a concurrency of {max(self.rungs)}")
        if any(each.output_tokens == 1 for each in self.kinds):
            raise ValueError("output_tokens should be greater than or equal to 2: one token has no TPOT")
        if self.agents and (self.arrivals or self.trace or self.classes or self.prefix):
            raise ValueError("agents are users in a closed loop, all of one kind: name no other shape with them")
        if not self.endpoint.has_tools:
            self._speaks_plainly()
        if len({each.name for each in self.classes}) < len(self.classes):
            raise ValueError("classes names a class twice")
        said = {"arrivals": self.arrivals, "trace": self.trace, "a list of concurrency": len(self.rungs) > 1}
        if len(named := [name for name, given in said.items() if given]) > 1:
            raise ValueError(f"{' and '.join(named)} exclude each other: name one of them")
        if len(set(self.ttft_prompt_tokens)) < len(self.ttft_prompt_tokens):
            raise ValueError(f"ttft_prompt_tokens {self.ttft_prompt_tokens} names a length twice")
        if self.min_duration_s > self.longest_s:
            raise ValueError(f"min_duration_s {self.min_duration_s:g} is above max_duration_s {self.longest_s:g}")
        return self

    def _speaks_plainly(self) -> None:
        """Without roles there are no tools."""
        if self.agents:
            raise ValueError(
                f"agents call tools, for which {self.endpoint.path} has no form: "
                "say endpoint chat or messages, or leave agents out"
            )
        if self.tool_call:
            raise ValueError(
                f"tool_call measures the call of a tool, for which {self.endpoint.path} has no form: "
                "say tool_call false, or endpoint chat or messages"
            )

    @property
    def rungs(self) -> tuple[int, ...]:
        """The users of each closed loop, in order; the last one is the concurrent stage's."""
        return self.concurrency if isinstance(self.concurrency, tuple) else (self.concurrency,)

    @property
    def ladder(self) -> tuple[str, ...]:
        """The concurrent stage and those in front of it, each by its own rung: ``users_1``, ``users_5``."""
        if self.trace:
            return ("trace",)
        what = "rate" if self.arrivals else "agents" if self.agents else "users"
        return tuple(f"{what}_{rung:g}" for rung in (self.arrivals.rates if self.arrivals else self.rungs))

    def promise(self, traffic: str | None) -> Slo | None:
        """What is promised of the requests of a class; ``None`` or an empty name stand for those of no class."""
        own = next((each.slo for each in self.classes if each.name == traffic), None)
        return own or self.slo

    @property
    def promises(self) -> bool:
        """Whether anything is promised of any request."""
        return self.slo is not None or any(each.slo for each in self.classes)

    def share_of(self, traffic: str | None) -> float:
        """Of ``requests``, which a closed loop repeats, those of a class; all of them for ``None``."""
        if traffic is None:
            return 1.0
        drawn = lengths.spread([each.weight for each in self.kinds], self.requests, "")
        return sum(self.kinds[place].name == traffic for place in drawn) / self.requests

    @property
    def users(self) -> int:
        """Those of the concurrent stage."""
        return self.rungs[-1]

    @property
    def kinds(self) -> tuple[RequestClass, ...]:
        """The classes of its requests; a workload without any has one, which has no name."""
        if self.classes:
            return self.classes
        return (
            RequestClass(
                name="", prompt_tokens=self.prompt_tokens, output_tokens=self.output_tokens, prefix=self.prefix
            ),
        )

    @property
    def typical(self) -> tuple[int, int]:
        """Prompt and output tokens of the mean request of the concurrent stage."""
        if self.agents:
            ends = (self.prompt_tokens, self.output_tokens)
            task, answer = (self.agents.scaled(lengths.typical(length)) for length in ends)
            return self.agents.scaled(self.agents.system_tokens) + task, max(2, answer)
        weights = [each.weight for each in self.kinds]
        prompts = (lengths.typical(each.prompt_tokens) * each.weight for each in self.kinds)
        outputs = (lengths.typical(each.output_tokens) * each.weight for each in self.kinds)
        return round(sum(prompts) / sum(weights)), round(sum(outputs) / sum(weights))

    @property
    def on_schedule(self) -> bool:
        """Whether requests of the concurrent stage are sent on schedule, whatever the server does."""
        return bool(self.arrivals or self.trace)

    @property
    def closed_users(self) -> int | None:
        """Users of the concurrent stage; ``None`` where requests come on schedule, whatever the server does."""
        return None if self.on_schedule else self.users

    @property
    def mean_context(self) -> int:
        """Tokens of the typical request that are in the KV cache while it generates, in the mean."""
        prompt, output = self.typical
        return prompt + output // 2

    @property
    def longest(self) -> tuple[int, int]:
        """Prompt and output tokens of the longest request of the concurrent stage."""
        if self.agents:
            answer = self.agents.scaled(lengths.longest(self.output_tokens))
            return max(1, self.agents.scaled(self.agents.context_tokens) - answer), answer
        ends = [(lengths.longest(each.prompt_tokens), lengths.longest(each.output_tokens)) for each in self.kinds]
        return max(ends, key=sum)

    @property
    def longest_s(self) -> float:
        """The longest time that a lasting stage measures, in the engine's own seconds."""
        return _LONGEST * self.min_duration_s if self.max_duration_s is None else self.max_duration_s
