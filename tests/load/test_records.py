import json

import pytest
from pydantic import ValidationError

from tuner.load.records import (
    FailureKind,
    RequestFailure,
    RequestRecord,
    StageResult,
    decode_result,
    describe,
    dump_records,
    encode,
    load_records,
)
from tuner.load.stage import Request, Stage, WorkerCommand, command

REQUEST = Request("1/concurrent/0", 40, 64, 3)
GOOD = RequestRecord("concurrent", 0, 0, REQUEST, 0.5, 31.0, (10.0, 20.0, 30.0), 66, None, 3, "length", False, 200)
BAD = RequestRecord(
    "concurrent", 1, 1, REQUEST, 0.6, 5.0, failure=RequestFailure(FailureKind.SSE_ERROR, "Übel: engine died")
)
RESULT = StageResult("concurrent", 2, (GOOD, BAD), 31.5, 0.1, 0.2, 0.4)


def test_a_stage_result_survives_its_line_of_json():
    assert decode_result(encode(RESULT)) == RESULT


def test_records_survive_their_json_lines():
    lines = list(dump_records([RESULT]))
    assert [line.count("\n") for line in lines] == [1, 1]
    assert list(load_records(lines)) == [GOOD, BAD]


def test_a_record_with_an_unknown_field_is_refused():
    line = json.dumps(json.loads(encode(GOOD)) | {"ttft": 1})
    with pytest.raises(ValidationError, match="ttft"):
        list(load_records([line]))


def test_a_command_survives_its_line_of_json():
    stage = Stage("concurrent", 2, (REQUEST, REQUEST), 0.7, 600.0, 0)
    job = WorkerCommand(stage, "http://127.0.0.1:8000", {"Authorization": "Bearer x"}, "glm")
    assert command(json.loads(encode(job))) == job


def test_ttft_and_e2e_are_the_first_and_last_chunk_with_tokens():
    assert (GOOD.ttft_ms, GOOD.e2e_ms) == (10.0, 30.0)


def test_a_request_without_a_token_has_neither_ttft_nor_e2e():
    assert BAD.ttft_ms is BAD.e2e_ms is None


def test_failures_are_described_by_the_first_that_we_did_not_cause():
    ours, theirs = RequestFailure(FailureKind.ABANDONED, "cut"), RequestFailure(FailureKind.HTTP, "503 dead")
    assert describe([ours, theirs, ours]) == "2 x abandoned, 1 x http; the first: 503 dead"
