import pytest
from pydantic import ValidationError

from tuner.load.workload import Workload


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("concurency", 5, "did you mean 'concurrency'"),
        ("concurrency", 21, "20 requests never reach a concurrency of 21"),
        ("output_tokens", 1, "greater than or equal to 2"),
        ("temperature", -1, "greater than or equal to 0"),
        ("max_failed_share", 1, "less than 1"),
        ("ttft_prompt_tokens", (5000, 5000), "names a length twice"),
        ("warm_up", {"shortest_tokens": 60, "longest_tokens": 50}, "shortest_tokens 60 is above longest_tokens 50"),
    ],
)
def test_a_mistake_in_a_workload_is_named(field, value, message):
    with pytest.raises(ValidationError, match=message):
        Workload.model_validate({"name": "x", "requests": 20} | {field: value})


def test_every_field_of_a_workload_says_what_it_means():
    assert all(info.description for name, info in Workload.model_fields.items())
