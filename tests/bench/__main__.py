"""Print every measurement of tuner itself."""

from tests.bench import client, doomed, logs, look, overhead, report, shares, texts

overhead.main()
client.main()
texts.main()
doomed.main()
report.main()
look.main()
logs.main()
shares.main()
