"""Print every measurement of tuner itself."""

from tests.bench import doomed, overhead, report

overhead.main()
doomed.main()
report.main()
