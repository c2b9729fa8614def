"EndoTect: the labelled and the segmented images of HyperKvasir, with its official folds."

import sys

from prepare import Archive, DataSet, main

HOST = "https://datasets.simula.no/downloads/hyper-kvasir"
FOLDS = (  # the commit whose files the checksums below are of, then the newest
    "https://raw.githubusercontent.com/simula/hyper-kvasir/49c0d0f915b57ac0b6cb18b49776ffa61c5512e3/official_splits",
    "https://raw.githubusercontent.com/simula/hyper-kvasir/master/official_splits",
)
ARCHIVES = [  # the host publishes no checksums: the CRC of every member and the official counts decide
    Archive(
        "hyper-kvasir-labeled-images.zip",
        bytes=3_928_814_344,
        exact=False,
        unpacked=4_000_000_000,
        urls=(f"{HOST}/hyper-kvasir-labeled-images.zip",),
        holds=("labeled-images",),
        places={"labeled-images": "labeled-images"},
    ),
    Archive(
        "hyper-kvasir-segmented-images.zip",
        bytes=46_179_365,
        exact=False,
        unpacked=50_000_000,
        urls=(f"{HOST}/hyper-kvasir-segmented-images.zip",),
        holds=("segmented-images",),
        places={"segmented-images": "segmented-images"},
    ),
    Archive(
        "2_fold_split.csv",
        bytes=621_410,
        urls=tuple(f"{place}/2_fold_split.csv" for place in FOLDS),
        checksum="sha256:e9bc264da8dd4ce5ebd6654080eb9ec8a00fd28c3d03a75a2c80b1eb5a096c06",
        plain=True,
        places={".": "official_splits/2_fold_split.csv"},
    ),
    Archive(
        "5_fold_split.csv",
        bytes=621_410,
        urls=tuple(f"{place}/5_fold_split.csv" for place in FOLDS),
        checksum="sha256:0230b465bdf73c23e949c74e1d4d68c4905a758195ea6b69b10f32c71a3be426",
        plain=True,
        places={".": "official_splits/5_fold_split.csv"},
    ),
]
DATASET = DataSet(
    name="endotect",
    page="https://datasets.simula.no/hyper-kvasir/",
    terms="CC BY 4.0; cite Borgli et al. 2020 (Scientific Data 7, 283)",
    archives=lambda args: ARCHIVES,
    counts={
        "labeled-images/image-labels.csv": 1,
        "labeled-images/**/*.jpg": 10_662,
        "segmented-images/images/*.jpg": 1_000,
        "segmented-images/masks/*.jpg": 1_000,
        "official_splits/*_fold_split.csv": 2,
    },
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
