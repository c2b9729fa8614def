"Mutants of whole files end well: a short run of `python -m tests.fuzz.run`; the long one is in figures/fuzz.json."

import tempfile
from pathlib import Path

import pytest


def test_mutants_end_well():
    from ctm.reports.reliability import ENDS, GOOD
    from tests.fuzz.run import ending, mutant
    from tests.fuzz.targets import targets

    counts = dict.fromkeys(ENDS, 0)
    with tempfile.TemporaryDirectory() as home:
        for name, target in targets(Path(home)).items():
            path = Path(home, target.place)
            path.parent.mkdir(parents=True, exist_ok=True)
            for number in range(20 if name == "network" else 120):
                path.write_bytes(mutant(target, name, number, seed=7)[1])
                end, why = ending(target, path)
                assert end in GOOD, f"{name}, mutant {number} of seed 7: {why}"
                counts[end] += 1
    assert sum(counts.values()) > 3000 and counts["read"] > 300 and counts["BadFileError"] > 1000


@pytest.mark.parametrize("name, numbers", [("geotiff", (2282, 2799, 2904)), ("SBD mat", (43, 640, 2800))])
def test_mutants_that_hung_or_crashed(name, numbers, tmp_path):
    "65,281 bands, for which GDAL takes minutes; and MATLAB files that kill scipy's reader."
    from tests.fuzz.run import ending, mutant
    from tests.fuzz.targets import targets

    target = targets(tmp_path)[name]
    for number in numbers:
        path = tmp_path / target.place
        path.write_bytes(mutant(target, name, number, seed=0)[1])
        assert ending(target, path)[0] == "BadFileError"
    path.write_bytes(target.files[0])
    assert ending(target, path)[0] == "read"
