"ADE20K, the scene parsing challenge of 2016: 150 classes, 20,210 images to train and 2,000 to validate."

import sys

from prepare import Archive, DataSet, main

ARCHIVES = [
    Archive(
        "ADEChallengeData2016.zip",
        bytes=967_000_000,
        exact=False,
        unpacked=1_300_000_000,
        urls=("https://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
        checksum="sha1:219e1696abb36c8ba3a3afe7fb2f4b4606a897c7",  # Gluon-CV's; MIT publishes none
        holds=("images", "annotations"),
        places={".": "ADEChallengeData2016"},
    )
]
IMAGES, MASKS = "ADEChallengeData2016/images", "ADEChallengeData2016/annotations"
DATASET = DataSet(
    name="ade20k",
    page="https://groups.csail.mit.edu/vision/datasets/ADE20K/",
    terms="annotations BSD 3-Clause; images for non-commercial research and education only, MIT does not own them",
    archives=lambda args: ARCHIVES,
    counts={
        f"{IMAGES}/training/*.jpg": 20_210,
        f"{IMAGES}/validation/*.jpg": 2_000,
        f"{MASKS}/training/*.png": 20_210,
        f"{MASKS}/validation/*.png": 2_000,
    },
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
