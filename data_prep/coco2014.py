"MS COCO 2014: 80 classes, 82,783 images to train and 40,504 to validate."

import sys

from prepare import Archive, DataSet, main

HOSTS = (  # the publisher's storage by https; its own name has no certificate that fits
    "https://s3.amazonaws.com/images.cocodataset.org",
)
ARCHIVES = [
    Archive(
        "annotations_trainval2014.zip",
        bytes=252_872_794,
        unpacked=500_000_000,
        urls=tuple(f"{host}/annotations/annotations_trainval2014.zip" for host in HOSTS),
        checksum="md5:0a379cfc70b0e71301e0f377548639bd",
        keep=r"/instances_(train|val)2014\.json$",
        holds=("annotations",),
        places={"annotations": "annotations"},
    ),
    Archive(
        "val2014.zip",
        bytes=6_645_013_297,
        unpacked=6_700_000_000,
        urls=tuple(f"{host}/zips/val2014.zip" for host in HOSTS),
        checksum="md5:a3d79f5ed8d289b7a7554ce06a5782b3",
        holds=("val2014",),
        places={"val2014": "val2014"},
    ),
    Archive(
        "train2014.zip",
        bytes=13_510_573_713,
        unpacked=13_600_000_000,
        urls=tuple(f"{host}/zips/train2014.zip" for host in HOSTS),
        checksum="md5:0da8c0bd3d6becc4dcb32757491aca88",
        holds=("train2014",),
        places={"train2014": "train2014"},
    ),
]
DATASET = DataSet(
    name="coco2014",
    page="https://cocodataset.org/#download",
    terms="annotations CC BY 4.0; images under the Flickr terms of use, each with a licence of its own",
    archives=lambda args: ARCHIVES,
    counts={
        "train2014/COCO_train2014_*.jpg": 82_783,
        "val2014/COCO_val2014_*.jpg": 40_504,
        "annotations/instances_*2014.json": 2,
    },
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
