"A prepared folder against the official counts, and a sample of it decoded by the reader that will read it."

import importlib
import random
from collections.abc import Callable
from pathlib import Path

SAMPLE = 16  # images decoded per split


def verify(
    name: str,  # of the module in `ctm.datasets` that has READER and OFFICIAL
    root: Path,  # folder of the data set
    counts: dict[str, int],  # pattern under the root -> official number of files
    skip: set[str],  # patterns and splits that are not checked
) -> list[str]:  # one line per problem
    "Files and splits against the official counts, and a sample of each split decoded."
    command = f"python data_prep/{name}.py"
    if not root.is_dir():
        return [f"{root}: no such folder; {command} prepares it"]
    from ctm.data.dataset import is_synthetic  # late: it brings torch

    problems = []
    synthetic = is_synthetic(root)
    if synthetic:
        print(f"{root}: a synthetic set, made by ctm and not real; only decoded")
    for pattern, official in ({} if synthetic else counts).items():
        count = sum(1 for _ in root.glob(pattern)) if pattern not in skip else official
        if count != official:
            problems.append(
                f"{root / pattern}: {count:,} files, officially {official:,}; delete them, run {command} again"
            )
    module = importlib.import_module(f"ctm.datasets.{name}")
    for split, official in module.OFFICIAL.items():
        if split in skip:
            print(f"{split}: not prepared, as asked")
            continue
        problems += verify_split(module.READER, root, split, None if synthetic else official)
    return problems


def verify_split(reader: Callable, root: Path, split: str, official: int | None) -> list[str]:
    "One split: its length, if an official one is given, and a seeded sample of its images and masks."
    try:
        samples = reader(root, split)
    except Exception as error:  # a damaged list or annotation file is a finding too
        return [f"split {split}: {error or type(error).__name__}"]
    if official is not None and len(samples) != official:
        found = f"{len(samples):,} images, officially {official:,}"
        return [f"{root}: split {split} has {found}; delete what is there and prepare it again"]
    problems, chosen = [], sorted(random.Random(0).sample(range(len(samples)), min(SAMPLE, len(samples))))
    for index in chosen:
        try:
            sample = samples[index]
            if sample["image"].shape[-2:] != sample["mask"].shape[-2:]:
                problems.append(
                    f"{root}: split {split}, {sample['name']}: image and mask differ in size; fetch them again"
                )
        except Exception as error:  # whatever a damaged file makes a decoder raise is a finding
            problems.append(f"split {split}: {error or type(error).__name__}")
    if not problems:
        print(f"{split}: {len(samples):,} images, {len(chosen)} of them decoded")
    return problems
