"The tables of reliability: every error is in them, and the fuzzer's record is whole."

import json
import re

from tests.tools import ROOT


def test_every_error_is_listed():
    from ctm.reports.reliability import error_classes, error_table

    table = error_table()
    assert set(table.index) == {kind.__name__ for kind in error_classes()} >= {"BadFileError", "NonFiniteLossError"}
    named = set()
    for file in (ROOT / "ctm").rglob("*.py"):
        found = re.findall(r"^class (\w+)\((.*)\):", file.read_text(), re.M)
        named |= {name for name, bases in found if re.search(r"(Error|Exception|Warning|Exit)\b", bases)}
    assert named == set(table.index), "every class of errors is in the table"
    assert table["meaning"].str.len().min() > 10 and table["remedy"].str.len().min() > 10
    page = (ROOT / "nbs" / "hostile.ipynb").read_text()
    assert all(name in page for name in named), "run nbs/hostile.ipynb again"


def test_the_recorded_run():
    found = json.loads((ROOT / "figures" / "fuzz.json").read_text())
    assert found["mutants"] >= 100_000 and not found["failures"]
    assert sum(row["mutants"] for row in found["readers"]) == found["mutants"]
    from ctm.reports.reliability import GOOD

    assert all(sum(row[end] for end in GOOD) == row["mutants"] for row in found["readers"])
