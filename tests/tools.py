"What tests share: where the project is, a tiny model, names that somebody may give."

import tempfile
from pathlib import Path

from hypothesis import strategies as st
from PIL import Image

from ctm.core import BadFileError, DatasetNotFoundError

ROOT = Path(__file__).resolve().parents[1]
TINY_MODEL = dict(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2)
TINY_PLAN = dict(size=16, embed_dim=16, depth=1, num_heads=2, epochs=1, batch_size=4)
HOSTILE_NAMES = [
    "<script>alert(1)</script>", "<b>&amp;", "$(touch x); `id` | rm -rf *", "two\nlines", "\u202egnp.exe", "x" * 300,
    "$\\frac{1}$", "100 % \\textbf{a}_b^c~#&", "_hidden", "", "\u0000\u0007", "\ud83d\ude00", "名前", "'\"",
]  # fmt: skip
SIDES = st.integers(1, 40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
TYPED = (BadFileError, DatasetNotFoundError)


def write_labelled(place, pictures):
    "Folder of pictures, each with its file's name and its label, and their table; what `plan_folder` takes."
    (place / "images").mkdir(parents=True)
    rows = ["file,label"]
    for name, pixels, label in pictures:
        Image.fromarray(pixels).save(place / "images" / name)
        rows.append(f"{name},{label}")
    (place / "labels.csv").write_text("\n".join(rows))
    return place / "images", place / "labels.csv", place / "out"


def link_elsewhere(file):
    "Make a file a link to what it was, in a folder beside its own: many who collect pictures link them."
    there = file.parent.parent / "elsewhere" / file.name
    there.parent.mkdir(exist_ok=True)
    file.rename(there)
    file.symlink_to(there)


def in_file(data, name, read):
    "What a reader makes of some bytes."
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, name)
        file.write_bytes(data)
        return read(file)
