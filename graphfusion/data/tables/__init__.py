"""Tables of any usual form: in memory, CSV, JSON, Parquet, folders of classes, Hugging Face data sets."""

from graphfusion.data.tables.table import Table, read_table, sealed

__all__ = ["Table", "read_table", "sealed"]
