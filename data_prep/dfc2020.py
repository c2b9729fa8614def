"DFC2020: Sentinel-1, Sentinel-2 and land cover, fetched by hand from IEEE DataPort, in one archive or in several."

import argparse
import re
import sys
from pathlib import Path

from prepare import Archive, DataSet, main
from unpack import names

from ctm.core import BadFileError

PATCH = re.compile(r"^(ROIs0000_(?:test|validation))_(s1|s2|dfc|lc)_(\w+)_p\d+\.tif$")
COUNTS = {"ROIs0000_test": 5_128, "ROIs0000_validation": 986}


def place(name: str) -> str | None:
    "Folder of a patch by its file name, whatever folder the archive has it in."
    found = PATCH.match(name)
    return f"{found[1]}/{found[2]}_{found[3]}" if found else None


def sort_patches(folder: Path, root: Path) -> dict[str, str]:
    "Patches of one archive, by season and sensor."
    targets = set()
    for file in sorted(folder.rglob("*.tif")):
        if target := place(file.name):
            new = folder / ".sorted" / target / file.name
            if new.exists():
                raise BadFileError(f"{file.name}: in two folders of the same archive; pass the official archives only")
            new.parent.mkdir(parents=True, exist_ok=True)
            file.rename(new)
            targets.add(target)
    if not targets:
        raise BadFileError(
            "no DFC2020 patches (ROIs0000_*_p*.tif) in the archive; if it holds further archives, "
            "unpack it and pass each of them by --archive"
        )
    return {f".sorted/{target}": target for target in sorted(targets)}


def archives(args: argparse.Namespace) -> list[Archive]:
    "One per file given; none given, the one to fetch."
    if not args.archive:
        whole = {f"{season}/{sensor}_*": season for season in COUNTS for sensor in ("s1", "s2", "dfc")}
        return [Archive("DFC_Public_Dataset.zip", bytes=0, places=whole)]
    found = []
    for file in args.archive:
        targets = {target for name in names(file) if (target := place(Path(name).name))} if file.is_file() else ()
        bytes = file.stat().st_size if file.is_file() else 0
        places = {target: target for target in targets}
        found.append(Archive(file.name, bytes=bytes, places=places, convert=sort_patches, file=file))
    return found


DATASET = DataSet(
    name="dfc2020",
    page="https://ieee-dataport.org/competitions/2020-ieee-grss-data-fusion-contest",
    terms="CC BY 4.0, behind a free IEEE account; cite the 2020 IEEE GRSS Data Fusion Contest",
    archives=archives,
    counts={f"{season}/{sensor}_*/*.tif": n for season, n in COUNTS.items() for sensor in ("s1", "s2", "dfc")},
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
