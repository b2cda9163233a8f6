"""Print every measurement of tuner itself."""

from tests.bench import client, doomed, logs, overhead, report

overhead.main()
client.main()
doomed.main()
report.main()
logs.main()
