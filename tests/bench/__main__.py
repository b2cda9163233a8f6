"""Print every measurement of tuner itself."""

from tests.bench import overhead

overhead.main()
