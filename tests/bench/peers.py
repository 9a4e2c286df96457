"""What others take for the same table, each in a process of its own: `python peers.py NAME CONNINFO TABLE DIRECTORY`.

Prints seconds from connecting to the last file, the bytes of the files and the peak of memory, as JSON. Libraries have
been loaded by then. Uses what `requirements.txt` names.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path


def adbc_parquet() -> Callable[[str, str, Path], None]:
    """ADBC's PostgreSQL driver, by COPY in its binary form, batch by batch into one Parquet file."""
    import adbc_driver_postgresql.dbapi as adbc
    import pyarrow.parquet as parquet

    def run(conninfo: str, table: str, directory: Path) -> None:
        with adbc.connect(conninfo) as connection, connection.cursor() as cursor:
            cursor.execute(f"select * from {table}")
            batches = cursor.fetch_record_batch()
            with parquet.ParquetWriter(directory / "part.parquet", batches.schema, compression="zstd") as writer:
                for batch in batches:
                    writer.write_batch(batch)

    return run


def pandas() -> Callable[[str, str, Path], None]:
    """psycopg, a data frame of all rows, and the Parquet file that `write_pandas` makes of it before it sends it."""
    import pandas
    import psycopg

    def run(conninfo: str, table: str, directory: Path) -> None:
        with psycopg.connect(conninfo) as connection, connection.cursor() as cursor:
            cursor.execute(f"select * from {table}")
            names = [column.name for column in cursor.description or ()]
            frame = pandas.DataFrame(cursor.fetchall(), columns=names)
        for name in names:
            # Parquet knows no such objects.
            if type(frame[name].iat[0]).__name__ == "UUID":
                frame[name] = frame[name].astype(str)
        # As `write_pandas` does it unless told otherwise.
        frame.to_parquet(directory / "part.parquet", compression="gzip", index=False)

    return run


PEERS = {"adbc_parquet": adbc_parquet, "pandas": pandas}


def main() -> None:
    """Runs one of them."""
    name, conninfo, table, directory = sys.argv[1:]
    run = PEERS[name]()
    began = time.monotonic()
    run(conninfo, table, Path(directory))
    seconds = time.monotonic() - began
    size = sum(file.stat().st_size for file in Path(directory).iterdir())
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": usage.ru_utime + usage.ru_stime,
                "mb": size / 1e6,
                "peak_mb": usage.ru_maxrss / 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
