"Tables of labels: what was written is read."

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctm.core import BadFileError
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


FILES = [f"d/{i}.png" for i in range(8)]
LABELS = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)])
CLASSES = ("forêt", "mass", "nodule")
NAMES = [[c for c, y in zip(CLASSES, row, strict=True) if y] for row in LABELS]


def column_of_names(between=";", separator=",", empty="", head="file{}label", end="\n", quote='"'):
    "Table with a column of names, as somebody writes it."
    cells = [f"{quote}{between.join(part) or empty}{quote}" for part in NAMES]
    rows = [f"{file}{separator}{cell}" for file, cell in zip(FILES, cells, strict=True)]
    return end.join([head.format(separator), *rows, ""])


def column_per_class(yes, no, separator=",", head="file"):
    "Table with a column per class, as somebody writes it."
    rows = [separator.join([file, *((no, yes)[y] for y in row)]) for file, row in zip(FILES, LABELS, strict=True)]
    return "\n".join([separator.join([head, *CLASSES]), *rows, ""])


WAYS = {
    "commas": (column_of_names(), False),
    "semicolons": (column_of_names(separator=";"), False),
    "tabs": (column_of_names(separator="\t", quote=""), False),
    "Excel's own line": ("sep=;\n" + column_of_names(separator=";", end="\r\n"), False),
    "header in any case": (column_of_names(head="File{}LABELS"), False),
    "commas in quotes": (column_of_names(","), True),
    "bars": (column_of_names("|"), True),
    "slashes": (column_of_names(" / "), True),
    "plus": (column_of_names("+"), True),
    "nan": (column_of_names(empty="nan"), True),
    "None": (column_of_names(empty="None"), True),
    "1 and 0": (column_per_class("1", "0"), False),
    "True and False": (column_per_class("True", "False"), True),
    "x": (column_per_class("x", ""), True),
    "yes and no": (column_per_class("Yes", "no"), True),
    "decimal commas": (column_per_class("1,0", "0,0", ";", "File"), True),
    "floats": (column_per_class("1.0", "0.0"), True),
    "code page": (column_of_names().encode("cp1252"), True),
    "UTF-16": (column_of_names().encode("utf-16"), False),
    "UTF-16 without a mark": (column_of_names().encode("utf-16-le"), False),
    "files in another case": (column_of_names().replace("d/", "D/").replace("png", "PNG"), True),
    "files of another suffix": (column_of_names().replace("png", "tif"), True),
    "invisible characters": (column_of_names().replace("mass", "mass\u200b", 1), True),
    "no-break spaces": (column_of_names(";\xa0 "), False),
    "look-alike letters": (column_of_names().replace("mass", "m\u0430ss", 1), True),
    "accents in two characters": (column_of_names().replace("ê", "e\u0302", 1), True),
    "an empty column": (column_of_names(separator=";", head="file{0}label{0}{0}").replace('"\n', '";;\n'), False),
}


@pytest.mark.parametrize("text, assumed", WAYS.values(), ids=list(WAYS))
def test_the_same_labels_in_many_ways(tmp_path, caplog, text, assumed):
    path = tmp_path / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    table = label_table(path, FILES)
    assert table.classes == CLASSES and np.array_equal(table.labels, LABELS) and table.files == tuple(FILES)
    assert len(caplog.records) == assumed, "one line says what was assumed"


def written(path, text):
    "Table of that text."
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "code_page, name", [("cp1252", "Wälder"), ("cp1251", "лес"), ("cp1250", "łąka"), ("utf-16", "森林")]
)
def test_code_pages_are_told_by_their_words(tmp_path, caplog, code_page, name):
    path = tmp_path / "labels.csv"
    path.write_bytes(f"file,label\nd/0.png,{name}\nd/1.png,{name};water\n".encode(code_page))
    assert name in label_table(path, FILES).classes
    assert code_page == "utf-16" or name in caplog.text
    assert label_table(path, FILES, encoding=code_page).classes == label_table(path, FILES).classes


def test_a_code_page_that_cannot_be_told_is_asked_for(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes("file,label\nd/0.png,森林\n".encode("cp932"))
    with pytest.raises(BadFileError, match="labels.csv: is not UTF-8.*encoding="):
        label_table(path, FILES)
    assert label_table(path, FILES, encoding="cp932").classes == ("森林",)
    path.write_bytes(b"PK\x03\x04 a workbook")
    with pytest.raises(BadFileError, match="workbook"):
        label_table(path, FILES)


@pytest.mark.parametrize("cell", ["mass|nodule", '"mass,nodule"', "mass/nodule", "mass + nodule"])
def test_one_class_or_several_is_asked_for(tmp_path, cell):
    path = written(tmp_path / "labels.csv", f"file,label\nd/0.png,{cell}\nd/1.png,mass\n")
    with pytest.raises(BadFileError, match="line 2.*one class, or several"):
        label_table(path, FILES)
    assert label_table(path, FILES, classes=["mass", "nodule"]).labels.tolist() == [[1, 1], [1, 0]]
    name = cell.strip('"')
    assert label_table(path, FILES, classes=[name, "mass"]).labels.tolist() == [[1, 0], [0, 1]]


def test_columns_of_other_names(tmp_path):
    path = written(tmp_path / "labels.csv", "File,Image,Finding,Label\nx,d/0.png,mass,9\ny,d/1.png,nodule,9\n")
    table = label_table(path, FILES, file="image", label="finding")
    assert table.files == ("d/0.png", "d/1.png") and table.classes == ("mass", "nodule")
    with pytest.raises(BadFileError, match="has no column 'picture'; its columns are .*; name one with file="):
        label_table(path, FILES, file="picture")


NAMED = {  # what people call the column of files, and what they write into it
    "image,class\nd/0.png,mass\nd/1.png,nodule\n": "the column 'image' names the images",
    "Unnamed: 0,filename,Category\n0,d/0.png,mass\n1,d/1.png,nodule\n": "the column 'filename' names the images",
    "image_id,age,label\nd/0,1,mass\nd/1,0,nodule\n": "the column 'image_id' names the images; not read: age",
    "id,path,tags\nd/0,d/0.png,mass\nd/1,d/1.png,nodule\n": "the column 'path' names the images; not read: id",
    "file,label\nset/d/0.png,mass\nset/d/1.png,nodule\n": "'set/' before every path is left out",
    "name,label\nC:\\me\\d\\0.png,mass\nC:\\me\\d\\1.png,nodule\n": "'C:/me/' before every path is left out",
    "image,mask,label\nd/0.png,d/0.png,mass\nd/1.png,d/1.png,nodule\n": "the column 'image' names the images",
    "image,mass,nodule\nd/0.png,1,0\nd/1.png,0,1\n": "the column 'image' names the images",
}


@pytest.mark.parametrize("text", NAMED)
def test_the_column_of_files_is_the_one_that_names_them(tmp_path, caplog, text):
    table = label_table(written(tmp_path / "labels.csv", text), FILES)
    assert table.files == ("d/0.png", "d/1.png") and table.classes == ("mass", "nodule")
    assert table.labels.tolist() == [[1, 0], [0, 1]]
    (line,) = caplog.records
    assert NAMED[text] in line.getMessage()


def test_a_table_of_another_folder(tmp_path):
    columns = [f"c{i}" for i in range(80)]
    path = written(tmp_path / "labels.csv", f"{','.join(['image', *columns])}\n{','.join(['x.png', *'1' * 80])}\n")
    with pytest.raises(BadFileError, match="no column names images, as 'd/0.png'; its columns are .* and 69 more"):
        label_table(path, FILES)
    path = written(tmp_path / "labels.csv", "image,label\nd/0.png,mass\nd/8.png,mass\nd/9.png,mass\n")
    with pytest.raises(BadFileError, match="line 3: 'd/8.png' is not in the folder of images"):
        label_table(path, FILES)


def test_two_columns_of_classes_need_a_word(tmp_path):
    path = written(tmp_path / "labels.csv", "file,class,category\nd/0.png,mass,x\n")
    with pytest.raises(BadFileError, match="has the columns 'class' and 'category'; name one with label="):
        label_table(path, FILES)
    assert label_table(path, FILES, label="class").classes == ("mass",)
    path = written(tmp_path / "labels.csv", "file,mass,category\nd/0.png,1,early\nd/1.png,0,late\n")
    with pytest.raises(
        BadFileError, match="column 'category' holds 'early', need 0 or 1; .* name the column of labels"
    ):
        label_table(path, FILES)
    with pytest.raises(ValueError, match="classes='cat,dog' is one text; give a list"):
        label_table(path, FILES, classes="cat,dog")


def test_nothing_is_a_class_where_it_is_named_as_one(tmp_path):
    path = written(tmp_path / "labels.csv", "file,label\nd/0.png,None\nd/1.png,mass\nd/2.png,nan\n")
    assert label_table(path, FILES).classes == ("mass",)
    assert label_table(path, FILES, classes=["mass", "None"]).labels.tolist() == [[0, 1], [1, 0], [0, 0]]


@pytest.mark.parametrize("asked", ["A.JPG", "a.bmp"])
def test_a_file_that_could_be_two_is_refused(tmp_path, asked):
    path = written(tmp_path / "labels.csv", f"file,label\n{asked},x\n")
    with pytest.raises(BadFileError, match="could be"):
        label_table(path, ["a.jpg", "A.png", "a.tif"])


def test_numbers_with_commas_are_not_two_classes(tmp_path):
    path = written(tmp_path / "labels.csv", "file;label\nd/0.png;1,0\nd/1.png;0\nd/2.png;1\n")
    with pytest.raises(BadFileError, match="one class, or several"):
        label_table(path, FILES)


def test_rows_without_a_file_are_skipped_where_asked(tmp_path, caplog):
    path = written(tmp_path / "labels.csv", "file,label\nd/0.png,mass\ngone.png,nodule\n")
    with pytest.raises(BadFileError, match="gone.png"):
        label_table(path, FILES)
    table = label_table(path, FILES, classes=CLASSES, bad="skip")
    assert table.files == ("d/0.png",) and len(table.labels) == len(table.rows) == 1 and "gone.png" in caplog.text


def grouped(tmp_path, groups):
    "Table of files with a column of groups."
    names = [f"{i}.png" for i in range(len(groups))]
    rows = "".join(f"{name},x,{group}\n" for name, group in zip(names, groups, strict=True))
    return label_table(written(tmp_path / "labels.csv", "file,label,Patient\n" + rows), names)


def test_an_empty_group_is_a_group_of_its_own(tmp_path):
    table = grouped(tmp_path, ["", "nan"] * 10 + ["p", "p"])
    for seed in range(5):
        sides = split_rows(table, 0.2, seed, "patient")
        assert 4 <= len(sides["val"]) <= 6 and len({20, 21} & {*sides["val"]}) in (0, 2)


def test_a_dominating_group_trains(tmp_path, caplog):
    table = grouped(tmp_path, ["big"] * 90 + [f"p{i // 2}" for i in range(10)])
    for seed in range(10):
        assert len(split_rows(table, 0.2, seed, "Patient")["val"]) == 10
    assert "10% of the images are for validation, not 20%" in caplog.text
    caplog.clear()
    assert len(split_rows(grouped(tmp_path, ["a"] * 6 + ["b"] * 4), 0.2, 0, "Patient")["val"]) == 4
    assert "40% of the images are for validation" in caplog.text


def test_spaces_within_a_name_do_not_make_a_second_class(tmp_path, caplog):
    names = ["dense forest", "dense\xa0forest", "dense  forest", "dense \u200bforest", "\u202fdense forest\u2009"]
    rows = "".join(f"d/{i}.png,{name}\n" for i, name in enumerate(names))
    path = written(tmp_path / "labels.csv", "file,label\n" + rows)
    assert label_table(path, FILES).classes == ("dense forest",) and len(caplog.records) == 1
    assert label_table(path, FILES, classes=["water", "dense\xa0forest"]).labels[:, 1].sum() == 5


REFUSED = {  # text below or in place of the header `file,label` -> what is said
    "file,label,label2\nd/0.png,mass,nodule\nd/1.png,nodule,\n": "line 2: the column 'label2' names classes, too ('nod",
    "file,label\nd/0.png,1\nd/1.png,0\n": "the column 'label' holds only 0, 1; if that says whether a class is there",
    "d/0.png,mass\nd/1.png,nodule\n": "begins with an image, not with a header; write one above it",
    "Our labels\nfile,label\nd/0.png,mass\n": "line 2: 2 values below a header of one; delete lines above the header",
    "file,label\nd/0.png,mass\nd/0.png,nodule\n": "line 2 already; keep one row per image, classes separated by",
    "file,label\nC:\\mine\\d\\0.png,mass\nd/1.png,mass\n": "did you mean 'd/0.png'? paths are those within the folder",
    "file,first,second\nd/0.png,mass,nodule\n": "line 2: column 'first' holds 'mass', need 0 or 1",
}


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_would_lose_labels_is_refused_with_a_remedy(tmp_path, text):
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(BadFileError) as error:
        label_table(file, FILES)
    assert REFUSED[text] in str(error.value)


def test_columns_that_are_not_read_are_said(tmp_path, caplog):
    file = tmp_path / "labels.csv"
    file.write_text("file,label,age,split\nd/0.png,mass,61,train\nd/1.png,nodule,,val\n")
    assert label_table(file, FILES).classes == ("mass", "nodule")
    assert caplog.messages == [f"{file}: not read: age"]
    caplog.clear()
    file.write_text("file,label,second\nd/0.png,mass,nodule\nd/1.png,nodule,\n")
    assert label_table(file, FILES, label="label").labels.tolist() == [[1, 0], [0, 1]]


def test_splits_without_images_are_named(tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text("file,label,split\nd/0.png,mass,train\nd/1.png,nodule,test\n")
    with pytest.raises(BadFileError, match="no image is left to validate on; the column 'split' has test, train; "):
        split_rows(label_table(file, FILES))
