"""Print every measurement of tuner itself."""

from tests.bench import client, doomed, logs, look, overhead, report, shares

overhead.main()
client.main()
doomed.main()
report.main()
look.main()
logs.main()
shares.main()
