"Tables of labels: what was written is read."

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctm.data.label_table import label_table, split_rows
from tests.tools import in_file

NAME = st.text(st.characters(exclude_characters=';,"', exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=12)


@given(
    classes=st.lists(NAME, min_size=1, max_size=4, unique_by=str.lower), rows=st.integers(1, 6), seed=st.integers(0, 9)
)
def test_label_table_comes_back(classes, rows, seed):
    rng, names = np.random.default_rng(seed), [f"d/{i}.png" for i in range(rows)]
    labels = rng.integers(0, 2, (rows, len(classes)))
    text = "file,label\n"
    for name, row in zip(names, labels, strict=True):
        text += f'{name},"{";".join(c for c, y in zip(classes, row, strict=True) if y)}"\n'
    table = in_file(text.encode(), "labels.csv", lambda path: label_table(path, names, classes))
    assert table.classes == tuple(classes) and np.array_equal(table.labels, labels)
    if rows > 1:
        sides = split_rows(table, 0.3, seed)
        assert sorted(sides["train"] + sides["val"]) == list(range(rows)) and all(sides.values())
