"""Tables in whatever form a caller has them, as DataFrames: paths, Arrow and polars tables, lists of rows."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from lmsys_ensemble.data.tables import read_table
from lmsys_ensemble.errors import InputError

TableLike: TypeAlias = Any
"""What `as_frame` takes. No type says "has the Arrow stream protocol or is a path", so that errors say it."""

_EXPECTED = (
    "expected a pandas, polars or Arrow table, the path of a file (.csv, .tsv, .jsonl, each also .gz, or .parquet), or "
    "a list of dicts, one per row"
)


def as_frame(table: TableLike) -> pd.DataFrame:
    """Return a table as a DataFrame.

    Parameters
    ----------
    table : DataFrame, table of another library, str, Path or list of dict
        A DataFrame is returned as it is. A path is read by `lmsys_ensemble.read_table`. Tables of other libraries
        (polars, Arrow, DuckDB) are taken through the Arrow stream protocol, or through their ``to_pandas``. A list
        holds one dict per row, all with the same keys.

    Raises
    ------
    InputError
        If it is none of these, or the file cannot be read.
    """
    if isinstance(table, pd.DataFrame):
        return table
    if isinstance(table, str | os.PathLike):
        return read_table(Path(table))
    if isinstance(table, list | tuple):
        return _from_rows(table)
    if isinstance(table, type) or not (hasattr(table, "__arrow_c_stream__") or hasattr(table, "to_pandas")):
        raise InputError(f"cannot read battles from {_described(table)}; {_EXPECTED}")
    if isinstance(table, pd.Series):
        raise InputError(f"got a Series ({table.name!r}), which is one column or one row; {_EXPECTED}")
    return _from_arrow(table) if hasattr(table, "__arrow_c_stream__") else _from_pandas_like(table)


def _from_arrow(table: Any) -> pd.DataFrame:
    try:
        arrow = pa.table(table)
        arrow = arrow.cast(pa.schema([pa.field(field.name, _without_views(field.type)) for field in arrow.schema]))
        frame = arrow.to_pandas(integer_object_nulls=True)  # else a missing id makes floats of all
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{_described(table)} cannot be read as an Arrow table: {error}") from error
    return pd.DataFrame(frame)


def _without_views(kind: Any) -> Any:
    """Return an Arrow type with plain strings for views, which polars gives and lists of which pandas cannot take."""
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.large_list(_without_views(kind.value_type))
    return kind


def _from_pandas_like(table: Any) -> pd.DataFrame:
    frame = table.to_pandas()
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"to_pandas() of {_described(table)} gave {_described(frame)}; {_EXPECTED}")
    return frame


def _from_rows(rows: list[Any] | tuple[Any, ...]) -> pd.DataFrame:
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(
                f"a list of rows must hold dicts; row {number} is {_described(row)}. {_EXPECTED.capitalize()}"
            )
        if set(row) != set(rows[0]):
            other = ", ".join(sorted(map(repr, set(row) ^ set(rows[0]))))
            raise InputError(f"all rows of a list must have the same keys; row {number} and row 0 differ in {other}")
    return pd.DataFrame([dict(row) for row in rows])


def _described(value: object) -> str:
    """Return what a value is, and what to pass instead where that is plain."""
    kind = type(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of shape {value.shape}, which has no column names; make a DataFrame of it"
    if isinstance(value, Mapping):
        return "a dict, which may be one row or a dict of columns; pass [row], or pandas.DataFrame(columns)"
    if hasattr(value, "collect"):
        return f"a {kind.__name__}, which holds a query and no rows yet; pass the result of its collect()"
    return "None" if value is None else f"a value of type {kind.__name__}"
