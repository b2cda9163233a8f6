"""Print every measurement of tuner itself."""

from tests.bench import doomed, logs, overhead, report

overhead.main()
doomed.main()
report.main()
logs.main()
