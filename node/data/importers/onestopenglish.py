"""OneStopEnglish (Vajjala and Lucic 2018): the reading level of news articles, each in three versions."""

from pathlib import Path

from ....crypto.errors import CorruptError
from .common import Importer, Made, Options, Progress, Row, deal, read_rows, write_institution

FILE = "onestopenglish.csv.gz"
LEVELS = {"ele": "elementary", "int": "intermediate", "adv": "advanced"}


def run(source: Path, out: Path, options: Options, progress: Progress) -> Made:
    """Write the articles, dealt out by the hash of their names; the versions of an article stay together."""
    rows = read_rows(source / FILE, ("article", "level", "text"))
    owner = deal((str(row["article"]) for row in rows), options.institutions)
    parts: list[list[Row]] = [[] for _ in range(options.institutions)]
    for number, row in enumerate(rows, 2):
        if row["level"] not in LEVELS or not row["article"]:
            what = f"{FILE}: line {number} has no article, or no level of {', '.join(LEVELS)}"
            raise CorruptError(what, "Fetch the source again.")
        record = {"record": f"{row['article']}-{row['level']}", "article": row["article"], "text": row["text"]}
        parts[owner[row["article"]]].append(record | {"level": LEVELS[row["level"]]})
    made = []
    for number, part in enumerate(parts):
        progress("writing", number, len(parts))
        name = f"institution-{number + 1}"
        write_institution(out / name, {"texts": part}, MANIFEST)
        made.append((name, out / name))
    return made


IMPORTER = Importer("news articles at three reading levels", run, least=1, most=10)

MANIFEST = """# OneStopEnglish (Vajjala and Lucic 2018, W18-0535, CC BY-SA 4.0). There are no students in it: the unit
# of privacy is the article, with its three versions.
format = 1
[unit]
subject = "article"
max_records = 3
[tables.texts]
path = "texts.parquet"
key = "record"
[[modality]]
name = "text"
kind = "text"
columns = ["text"]
[[task]]
name = "level"
kind = "ordinal"
column = "level"
classes = ["elementary", "intermediate", "advanced"]
[split]
share = 0.2
salt = "onestopenglish"
"""
