"Kvasir-SEG: 1,000 endoscopic photographs with polyp masks, 880 to train and 120 to validate."

import sys

from prepare import Archive, DataSet, main

PAGE = "https://datasets.simula.no/kvasir-seg/"
LISTS = (  # the data set's baseline code, then the challenge that published the same lists
    "https://raw.githubusercontent.com/DebeshJha/Kvasir-SEG/HEAD/Data-split",
    "https://raw.githubusercontent.com/DebeshJha/2020-MediaEval-Medico-polyp-segmentation/HEAD/kvasir-seg-train-val",
)
ARCHIVES = [
    Archive(
        "kvasir-seg.zip",
        bytes=46_227_172,
        unpacked=50_000_000,
        urls=("https://datasets.simula.no/downloads/kvasir-seg.zip",),
        # the host publishes none; this one stands in torch_em and in other projects that fetched the file
        checksum="sha256:03b30e21d584e04facf49397a2576738fd626815771afbbf788f74a7153478f7",
        holds=("images", "masks"),
        places={"images": "images", "masks": "masks"},
    ),
    Archive(
        "train.txt",
        bytes=22_880,
        urls=tuple(f"{place}/train.txt" for place in LISTS),
        checksum="sha256:49992c7c6c80abf02032050d4ae754236da3ba1041f609659ad0043ff6d1795c",
        plain=True,
        places={".": "train.txt"},
    ),
    Archive(
        "val.txt",
        bytes=3_120,
        urls=tuple(f"{place}/val.txt" for place in LISTS),
        checksum="sha256:d9b48bd3d980324edb39df97764fdbb5489b2583f088fb49c659b76f6d20876b",
        plain=True,
        places={".": "val.txt"},
    ),
]
DATASET = DataSet(
    name="kvasir_seg",
    page=PAGE,
    terms="research and education only; commercial use needs written permission (see the page)",
    archives=lambda args: ARCHIVES,
    counts={"images/*.jpg": 1_000, "masks/*.jpg": 1_000},
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
