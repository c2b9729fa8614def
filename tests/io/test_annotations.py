"Masks in other programs' forms give the same pixels when they are read again by these programs' rules."

import json
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools.coco import COCO
from rasterio.crs import CRS
from rasterio.features import rasterize

from ctm.io.annotations import brush_runs, coco_annotations, geojson, qgis_style
from ctm.io.exchange import cvat_colors, cvat_files, label_map, studio_settings, studio_task
from tests.tools import HOSTILE_NAMES

MASKS = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 2, 255]))


@given(MASKS)
def test_coco_is_the_mask(tmp_path_factory, mask):
    "Read by pycocotools, holes and single pixels among them."
    items = coco_annotations(mask, {1: 10, 2: 20}, image=7)
    h, w = mask.shape
    images = [dict(id=7, height=h, width=w, file_name="a.png")]
    file = tmp_path_factory.mktemp("coco") / "a.json"
    categories = [dict(id=10, name="a"), dict(id=20, name="b")]
    file.write_text(json.dumps(dict(images=images, annotations=items, categories=categories)))
    coco = COCO(file)
    again = np.zeros_like(mask)
    for one in coco.loadAnns(coco.getAnnIds()):
        found = coco.annToMask(one).astype(bool)
        assert found.sum() == one["area"] and not again[found].any()
        left, top, width, height = one["bbox"]
        assert found[top : top + height, left : left + width].sum() == one["area"]
        again[found] = one["category_id"] // 10
    assert (again == np.where(mask == 255, 0, mask)).all()


def decoded(data):
    "Layer of Label Studio, read as its own library reads it: (values,) uint8."
    bits = "".join(f"{byte:08b}" for byte in data)
    place = 0

    def take(size):
        nonlocal place
        place += size
        return int(bits[place - size : place], 2)

    count, word, sizes = take(32), take(5) + 1, None
    sizes = [take(4) + 1 for _ in range(4)]
    values = []
    while len(values) < count:
        same = take(1)
        length = take(sizes[take(2)]) + 1
        values += [take(word)] * length if same else [take(word) for _ in range(length)]
    return np.array(values, np.uint8)


@given(MASKS)
def test_brush_strokes_are_the_mask(mask):
    layer = decoded(brush_runs(mask == 1)).reshape(*mask.shape, 4)
    assert ((layer[..., 3] > 0) == (mask == 1)).all()


def test_a_long_run_is_parted():
    region = np.zeros((300, 300), bool)
    region[200:] = True
    assert (decoded(brush_runs(region)).reshape(300, 300, 4)[..., 3] > 0).sum() == 100 * 300


@pytest.mark.parametrize("system", [32633, 4326, None])
def test_geojson_has_the_rasters_coordinates(system):
    mask = np.array([[1, 1, 0], [0, 1, 2]], np.uint8)
    place = rasterio.Affine(10, 0, 500, 0, -10, 900)
    crs = system and CRS.from_epsg(system)
    drawn = geojson(mask, {1: "a", 2: "b"}, {1: "#112233", 2: "#445566"}, place, crs)
    names = {32633: "urn:ogc:def:crs:EPSG::32633", 4326: "urn:ogc:def:crs:OGC:1.3:CRS84"}
    assert (drawn["crs"] or dict(properties={}))["properties"].get("name") == names.get(system)
    shapes = [(part["geometry"], part["properties"]["value"]) for part in drawn["features"]]
    assert (rasterize(shapes, mask.shape, transform=place) == mask).all()
    assert json.loads(json.dumps(drawn))["type"] == "FeatureCollection"


def test_a_system_without_a_number_becomes_degrees():
    system = CRS.from_proj4("+proj=laea +lat_0=10 +lon_0=20 +ellps=sphere")
    drawn = geojson(np.ones((2, 2), np.uint8), {1: "a"}, {1: "#112233"}, rasterio.Affine(10, 0, 0, 0, -10, 0), system)
    x, y = drawn["features"][0]["geometry"]["coordinates"][0][0]
    assert drawn["crs"]["properties"]["name"].endswith("CRS84") and abs(x - 20) < 0.01 and abs(y - 10) < 0.2


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_any_name_is_text(name):
    "In XML it is one attribute, in a list of labels one line."
    if name.isprintable() and "\ud83d" not in name:
        label = ElementTree.fromstring(studio_settings([name], ["#112233"])).find(".//Label")
        assert label.get("value") == name
    entry = ElementTree.fromstring(qgis_style([name], ["#112233"]).split("\n", 1)[1]).find(".//paletteEntry")
    assert entry.get("color") == "#112233"
    lines = label_map([name], cvat_colors(["#112233"])).splitlines()
    assert len(lines) == 3 and lines[2].count(":") == 3


def test_colours_of_cvat_differ():
    files = dict(cvat_files([("a", np.array([[0, 1, 2]], np.uint8))], ["x", "y"], ["#112233", "#112233"]))
    assert b"x:128,0,0::\ny:0,128,0::" in files["labelmap.txt"]
    assert files["ImageSets/Segmentation/default.txt"] == b"a\n"


def test_a_task_has_only_the_classes_that_are_there():
    task = studio_task(np.array([[0, 1]], np.uint8), {1: "x", 2: "y"}, "i/ä b.jpg", 0.25)
    (prediction,) = task["predictions"]
    assert [r["value"]["brushlabels"] for r in prediction["result"]] == [["x"]] and prediction["score"] == 0.25
    assert task["data"]["image"] == "/data/local-files/?d=i/%C3%A4%20b.jpg"
