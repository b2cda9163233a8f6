import pytest

from tuner.errors import MeasurementError, RequestsRefused
from tuner.load.plan import Room
from tuner.load.prompts import WORDS
from tuner.load.warmup import lengths, warm_up
from tuner.load.workload import SingleUser, WarmUpLimits, Workload

WORKLOAD = Workload(
    name="w",
    concurrency=3,
    prompt_tokens=300,
    requests=3,
    single_user=SingleUser(prompt_tokens=100),
    ttft_prompt_tokens=(5000,),
    tool_call=False,
    warm_up=WarmUpLimits(shortest_tokens=500, longest_tokens=5000, settle_tolerance=0.3, max_rounds=4),
)


def warmed(client, server, workload=WORKLOAD, context=None, kv=None, seed=1):
    return warm_up(
        client,
        server.target,
        workload,
        context_tokens=context,
        kv_tokens=kv,
        seed=seed,
        watch=lambda: None,
    )


def sent_tokens(server) -> list[int]:
    return [server.prompt_tokens(body) for body in server.bodies]


@pytest.fixture
def quick(server):
    server.ttft_s, server.itl_s = 0.02, 0.0005
    return server


def test_lengths_go_from_the_shortest_to_the_longest_in_half_decades():
    fitting, skipped = lengths(Workload(name="w"), Room(None, None))
    assert fitting == (50, 100, 158, 500, 1000, 1581, 5000, 15811, 30000, 50000)
    assert skipped == ()


def test_lengths_that_exceed_the_context_are_left_out_and_said():
    fitting, skipped = lengths(Workload(name="w"), Room(2048, None))
    assert fitting == (50, 100, 158, 500, 1000, 1581)
    assert [what.what for what in skipped] == ["warm_up_5000", "warm_up_15811", "warm_up_30000", "warm_up_50000"]


def test_the_tokenizer_is_calibrated_by_the_servers_own_counts(client, quick):
    calibration = warmed(client, quick).calibration
    assert calibration.overhead_tokens == pytest.approx(7)
    assert calibration.tokens_per_word == pytest.approx(1 + sum(len(word) > 5 for word in WORDS) / len(WORDS))


def test_prompts_then_have_the_length_that_was_asked(client, quick):
    warmed(client, quick)
    calibration, rest = sent_tokens(quick)[:2], sent_tokens(quick)[2:]
    assert all(min(abs(tokens - length) for length in (100, 300, 500, 1581, 5000)) <= 16 for tokens in rest)
    assert calibration[1] - calibration[0] == calibration[0] - 7


def test_long_prompts_go_alone_and_short_ones_at_the_workloads_concurrency(client, quick):
    warmed(client, quick)
    by_length = list(zip(sent_tokens(quick), quick.in_flight_at_arrival, strict=True))
    assert [others for tokens, others in by_length if tokens > 2000] == [1]
    assert max(others for tokens, others in by_length if tokens < 400) == 3


def test_a_steady_server_has_settled_after_two_rounds(client, quick):
    result = warmed(client, quick)
    assert (result.rounds, result.settled) == (2, True)
    assert result.ttft_ms_last == pytest.approx(20, abs=8)
    assert result.requests == len(quick.bodies)


def test_rounds_go_on_while_ttft_still_falls(client, quick):
    rounds_of = 3 * len([length for length in lengths(WORKLOAD, Room(None, None))[0] if length <= 2000])
    started = 2 + 1  # calibration and the long prompt

    def slow_at_first(body):
        done = (len(quick.bodies) - 1 - started) // rounds_of
        quick.ttft_s = 0.02 + 0.08 / 4**done
        return quick.stream(body)

    quick.answer = slow_at_first
    result = warmed(client, quick)
    assert result.rounds >= 3
    assert result.ttft_ms_first is not None
    assert result.ttft_ms_last is not None
    assert result.ttft_ms_first > 2 * result.ttft_ms_last


def test_rounds_go_on_while_the_server_compiles(client, quick):
    said = iter([None, None, None, "a kernel", None, None])  # before and after each round
    result = warm_up(
        client,
        quick.target,
        WORKLOAD,
        context_tokens=None,
        kv_tokens=None,
        seed=1,
        watch=lambda: None,
        disturbed=lambda: next(said),
    )
    assert (result.rounds, result.settled) == (3, True)


def test_a_server_that_never_settles_is_marked_so(client, quick):
    def erratic(body):
        quick.ttft_s = 0.02 * 3 ** (len(quick.bodies) // 15 % 2)
        return quick.stream(body)

    quick.answer = erratic
    workload = WORKLOAD.model_copy(update={"warm_up": WarmUpLimits(longest_tokens=500, max_rounds=3)})
    result = warmed(client, quick, workload.model_copy(update={"ttft_prompt_tokens": ()}))
    assert (result.rounds, result.settled) == (3, False)


def test_the_first_requests_stall_is_kept(client, quick):
    def stalled_once(body):
        quick.ttft_s = 0.5 if len(quick.bodies) == 1 else 0.02
        return quick.stream(body)

    quick.answer = stalled_once
    assert warmed(client, quick).first_request_ttft_ms == pytest.approx(500, abs=50)


def test_another_seed_warms_up_with_other_prompts(client, quick):
    for seed in (1, 2):
        warmed(client, quick, seed=seed)
    starts = {" ".join(body["messages"][0]["content"].split()[:6]) for body in quick.bodies}
    assert len(starts) == len(quick.bodies)


def test_a_tool_call_is_warmed_up_if_one_will_be_measured(client, quick):
    warmed(client, quick, WORKLOAD.model_copy(update={"tool_call": True}))
    assert sum("tools" in body for body in quick.bodies) == 1


def test_a_server_without_a_tool_parser_is_warmed_up_all_the_same(client, quick, answer):
    refusal = answer([(0, b'"auto" tool choice requires --enable-auto-tool-choice')], status=400)
    quick.answer = lambda body: refusal if "tools" in body else quick.stream(body)
    assert warmed(client, quick, WORKLOAD.model_copy(update={"tool_call": True})).settled


def test_a_server_that_refuses_is_a_measurement_error_with_its_own_words(client, quick, answer):
    quick.answer = lambda body: answer([(0, b"no such model")], status=404)
    with pytest.raises(MeasurementError, match="warm_up_calibration: 1 x http; the first: 404 no such model"):
        warmed(client, quick)


@pytest.mark.parametrize(("status", "error"), [(400, RequestsRefused), (401, RequestsRefused), (429, MeasurementError)])
def test_a_refusal_that_would_come_every_time_is_the_configurations_fault(client, quick, answer, status, error):
    quick.answer = lambda body: answer([(0, b"no")], status=status)
    with pytest.raises(error) as refused:
        warmed(client, quick)
    assert type(refused.value) is error


def test_token_counts_that_make_no_sense_are_a_measurement_error(client, quick, answer):
    def constant(body):
        return answer([(0, quick.delta("length", content="x")), (0, quick.usage(body, 1, prompt_tokens=5))])

    quick.answer = constant
    with pytest.raises(MeasurementError, match="no tokenizer counts so"):
        warmed(client, quick)


def test_the_whole_warm_up_is_watched(client, quick):
    class ServerDied(Exception):
        pass

    def watch() -> None:
        if len(quick.bodies) >= 6:
            raise ServerDied

    with pytest.raises(ServerDied):
        warm_up(client, quick.target, WORKLOAD, context_tokens=None, kv_tokens=None, seed=1, watch=watch)
    assert len(quick.bodies) < 6 + 2 * WORKLOAD.users
