"""OULAD's clicks by week and activity: as the R package has them, or summed up from the Open University's own files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from .common import Row, damaged, one_of, read_rows, whole

WEEKLY = "clicks_weekly_AAA_BBB.csv.gz"
KEYS = ("code_module", "code_presentation", "id_student")
_TYPES = {**dict.fromkeys((*KEYS, "id_site"), pa.string()), "date": pa.int64(), "sum_click": pa.int64()}


def read(source: Path, last_week: int) -> list[Row]:
    """Return the sum of clicks of each student, week (at most `last_week`) and activity.

    Raises UsageError (no such file) or CorruptError (unreadable).
    """
    path = one_of(source, "studentVle.csv", WEEKLY)
    if path.name != WEEKLY:
        return _summed(path, _activities(source), last_week)
    rows = read_rows(path, (*KEYS, "week", "activity_type", "clicks"))
    return [{**row, "week": whole(row["week"], f"{path}: week") or 0,
             "clicks": whole(row["clicks"], f"{path}: clicks") or 0} for row in rows]  # fmt: skip


def _activities(source: Path) -> dict[str, str]:
    rows = read_rows(one_of(source, "vle.csv", "vle.csv.gz"), ("id_site", "activity_type"))
    return {str(row["id_site"]): str(row["activity_type"]) for row in rows}


def _summed(path: Path, activities: dict[str, str], last_week: int) -> list[Row]:
    """Sum ten million rows block by block: all of them at once would need gigabytes."""
    sites = pa.table({"id_site": list(activities), "activity_type": list(activities.values())})
    convert = pyarrow.csv.ConvertOptions(column_types=_TYPES, include_columns=list(_TYPES))
    keys, parts = [*KEYS, "week", "activity_type"], []
    try:
        with pyarrow.csv.open_csv(path, convert_options=convert) as reader:
            for batch in reader:
                block = pa.Table.from_batches([batch])
                week = pc.cast(pc.floor(pc.divide(pc.cast(block["date"], pa.float64()), 7.0)), pa.int64())
                block = block.append_column("week", week).filter(pc.less_equal(week, last_week))
                block = block.join(sites, "id_site")
                parts.append(block.group_by(keys).aggregate([("sum_click", "sum")]).rename_columns([*keys, "clicks"]))
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, f"it is damaged, or has no columns {', '.join(_TYPES)}") from error
    whole_table = pa.concat_tables(parts) if parts else pa.table({name: [] for name in (*keys, "clicks")})
    sums = whole_table.group_by(keys).aggregate([("clicks", "sum")]).rename_columns([*keys, "clicks"])
    rows: list[Row] = sums.sort_by([(key, "ascending") for key in keys]).to_pylist()
    return rows
