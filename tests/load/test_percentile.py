import pytest

from tuner.load.percentile import percentile


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([10.0], 95, 10.0),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.5),
        ([4.0, 1.0, 3.0, 2.0], 25, 1.75),
        ([1.0, 2.0, 3.0, 4.0], 0, 1.0),
        ([1.0, 2.0, 3.0, 4.0], 100, 4.0),
        (list(range(101)), 95, 95.0),
    ],
)
def test_it_interpolates_linearly_between_the_ranked_values(values, percent, expected):
    assert percentile(values, percent) == pytest.approx(expected)


def test_it_is_what_numpy_gives():
    numpy = pytest.importorskip("numpy")
    values = [(i * 7919) % 1009 / 3 for i in range(57)]
    assert [percentile(values, p) for p in (1, 33.3, 50, 95, 99)] == pytest.approx(
        list(numpy.percentile(values, [1, 33.3, 50, 95, 99]))
    )


def test_a_percentile_of_nothing_is_none():
    assert percentile([], 50) is None
