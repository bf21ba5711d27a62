"""One-minute windows of a file of trades in Flink SQL; :mod:`tests.benchmarks.vwap` runs it with Flink's Python.

    python vwap_flink.py FRAMES OUTPUT_FOLDER

Prints the CPU seconds that the JVM took from its start to the end of the job, all its threads together.
"""

import os
import sys
from pathlib import Path

from pyflink.table import EnvironmentSettings, TableEnvironment

SOURCE = """
    create table `trades` (
        `data` row<`symbol` string, `price` decimal(18, 8), `quantity` decimal(18, 8), `is_aggressive_buy` boolean,
                 `timestamp` timestamp_ltz(6)>,
        ts as cast(`data`.`timestamp` as timestamp_ltz(3)),
        watermark for ts as ts - interval '5' second
    ) with ('connector' = 'filesystem', 'path' = 'file://{frames}', 'format' = 'json',
            'json.timestamp-format.standard' = 'ISO-8601')
"""
SINK = """
    create table `windows` (
        `symbol` string, `start` bigint, `high` decimal(18, 8), `low` decimal(18, 8), `volume` decimal(38, 8),
        `notional` decimal(38, 16), `trades` bigint, `buy_volume` decimal(38, 8)
    ) with ('connector' = 'filesystem', 'path' = 'file://{output}', 'format' = 'csv')
"""
INSERT = """
    insert into `windows`
    select `data`.`symbol`, timestampdiff(second, timestamp '1970-01-01 00:00:00', window_start),
           max(`data`.`price`), min(`data`.`price`), sum(`data`.`quantity`),
           sum(`data`.`price` * `data`.`quantity`), count(*),
           sum(case when `data`.`is_aggressive_buy` then `data`.`quantity` else cast(0 as decimal(18, 8)) end)
    from table(tumble(table `trades`, descriptor(ts), interval '1' minute))
    group by `data`.`symbol`, window_start, window_end
"""


def jvm_seconds() -> float:
    """CPU of this process's children, which live until it ends."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        fields = stat.read_text().rpartition(")")[2].split()
        if int(fields[1]) == os.getpid():
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    environment = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    for key, value in {"parallelism.default": "1", "table.local-time-zone": "UTC"}.items():
        environment.get_config().set(key, value)
    environment.execute_sql(SOURCE.format(frames=sys.argv[1]))
    environment.execute_sql(SINK.format(output=sys.argv[2]))
    environment.execute_sql(INSERT).wait()
    print(jvm_seconds())


if __name__ == "__main__":
    main()
