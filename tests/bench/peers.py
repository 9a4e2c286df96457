"""What others take for the same rows, each in a process of its own: `python peers.py NAME`, with what it needs as JSON on its input.

Prints when it began, the seconds from connecting to the end, and what the process cost, as JSON. Libraries have been loaded by
then. Those that send to Snowflake end when their COPY is refused: how long they took is for the object store to say.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = "PEERS"
NOT_LOADED = "Not loaded, for the sake of a measurement"
CHUNK = 100_000


@dataclass(frozen=True)
class Work:
    """Where the rows are, and where they go: a directory, or a table of a Snowflake account."""

    sockets: str
    database: str
    user: str
    table: str
    inline: str
    directory: Path
    snowflake: dict[str, Any]

    @property
    def url(self) -> str:
        """PostgreSQL's address."""
        return f"postgresql://{self.user}@/{self.database}?host={self.sockets}"

    @property
    def query(self) -> str:
        """All rows."""
        return f"select * from {self.table}"


Run = Callable[[Work], None]


def adbc_parquet() -> Run:
    """ADBC's PostgreSQL driver, by COPY in its binary form, batch by batch into one Parquet file."""
    import adbc_driver_postgresql.dbapi as postgresql
    import pyarrow.parquet as parquet

    def run(work: Work) -> None:
        with postgresql.connect(work.url) as connection, connection.cursor() as cursor:
            cursor.execute(work.query)
            batches = cursor.fetch_record_batch()
            with parquet.ParquetWriter(work.directory / "part.parquet", batches.schema, compression="zstd") as writer:
                for batch in batches:
                    writer.write_batch(batch)

    return run


def adbc_ingest() -> Run:
    """The same driver's rows, given to ADBC's Snowflake driver, which encodes and sends them by itself."""
    import adbc_driver_postgresql.dbapi as postgresql
    import adbc_driver_snowflake.dbapi as snowflake

    def run(work: Work) -> None:
        there = work.snowflake
        options = {
            "username": there["user"],
            "password": there["password"],
            "adbc.snowflake.sql.account": there["account"],
            "adbc.snowflake.sql.uri.host": there["host"],
            "adbc.snowflake.sql.uri.port": str(there["port"]),
            "adbc.snowflake.sql.uri.protocol": there["protocol"],
            "adbc.snowflake.sql.db": there["database"],
            "adbc.snowflake.sql.schema": there["schema"],
            "adbc.snowflake.sql.warehouse": there["warehouse"],
        }
        with (
            postgresql.connect(work.url) as source,
            source.cursor() as rows,
            snowflake.connect(db_kwargs=options, autocommit=True) as target,
            target.cursor() as cursor,
        ):
            rows.execute(work.query)
            with refused(snowflake.Error):
                cursor.adbc_ingest(TARGET, rows.fetch_record_batch(), mode="append")

    return run


def pandas() -> Run:
    """psycopg, a data frame of all rows, and `write_pandas`, as its documentation shows it."""
    import psycopg
    from pandas import DataFrame

    send = write_pandas()

    def run(work: Work) -> None:
        with psycopg.connect(work.url) as connection, connection.cursor() as cursor:
            cursor.execute(work.query)
            names = [column.name for column in cursor.description or ()]
            frame = DataFrame(cursor.fetchall(), columns=names)
        for name in names:
            # Parquet knows no such objects.
            if type(frame[name].iat[0]).__name__ == "UUID":
                frame[name] = frame[name].astype(str)
        send(work, frame)

    return run


def pandas_inline() -> Run:
    """A JSON result out of its row: psycopg, Python's objects, a data frame, `write_pandas`."""
    import psycopg
    from pandas import DataFrame

    send = write_pandas()

    def run(work: Work) -> None:
        with psycopg.connect(work.url) as connection:
            row = connection.execute(work.inline).fetchone()
        assert row is not None
        send(work, DataFrame(row[0]))

    return run


def write_pandas() -> Callable[[Work, Any], None]:
    """The connector's own way to send a data frame."""
    import snowflake.connector
    from snowflake.connector import pandas_tools

    def send(work: Work, frame: Any) -> None:
        there = work.snowflake | {"enable_server_session_keep_alive_auto_detection": False}
        with snowflake.connector.connect(**there) as connection, refused(snowflake.connector.Error):
            pandas_tools.write_pandas(connection, frame, TARGET, use_logical_type=True)

    return send


def dlt() -> Run:
    """dlt's own source of SQL tables, by its Arrow backend, to Parquet files in a directory."""
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
    import dlt
    from dlt.sources.sql_database import sql_table
    from sqlalchemy import create_engine

    def run(work: Work) -> None:
        engine = create_engine(work.url.replace("postgresql:", "postgresql+psycopg:"))
        schema, table = work.table.split(".")
        rows = sql_table(
            credentials=engine,
            schema=schema,
            table=table,
            backend="pyarrow",
            chunk_size=CHUNK,
            reflection_level="full_with_precision",
        )
        pipeline = dlt.pipeline(
            pipeline_name="bench",
            pipelines_dir=str(work.directory / "state"),
            destination=dlt.destinations.filesystem(bucket_url=str(work.directory / "files")),
            dataset_name="rows",
        )
        pipeline.run(rows, table_name="orders", loader_file_format="parquet").raise_on_failed_jobs()

    return run


PEERS = {"adbc_parquet": adbc_parquet, "adbc_ingest": adbc_ingest, "pandas": pandas, "dlt": dlt, "pandas_inline": pandas_inline}


class refused:  # noqa: N801 - reads as what it says
    """The block must end with this kind of error, in the words that the measurement had Snowflake's side say."""

    def __init__(self, kind: type[Exception]) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        assert error is not None, "nothing was refused, so nothing was staged"
        return isinstance(error, self._kind) and NOT_LOADED in str(error)


def main() -> None:
    """Runs one of them."""
    [name] = sys.argv[1:]
    given = json.load(sys.stdin)
    work = Work(**given | {"directory": Path(given["directory"])})
    run = PEERS[name]()
    before = resource.getrusage(resource.RUSAGE_SELF)
    moment, began = time.time(), time.monotonic()
    run(work)
    seconds = time.monotonic() - began
    usage = resource.getrusage(resource.RUSAGE_SELF)
    size = sum(file.stat().st_size for file in work.directory.rglob("*.parquet") if "state" not in file.parts)
    measured = {
        "began": moment,
        "seconds": seconds,
        "cpu_client": usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime,
        "mb": size / 1e6,
        "peak_mb": usage.ru_maxrss / 1024,
    }
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
