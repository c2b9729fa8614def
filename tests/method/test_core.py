"Errors of the readers are typed."

import pytest

from ctm.checkpoint import load_model
from ctm.core import DatasetNotFoundError
from ctm.datasets import coco2014, folder, voc2012


def test_not_found_is_typed(tmp_path):
    for read in (
        lambda: voc2012.Voc2012(tmp_path),
        lambda: coco2014.Coco2014(tmp_path),
        lambda: folder.load(tmp_path, "all"),
    ):
        with pytest.raises(DatasetNotFoundError):
            read()
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_model(tmp_path / "none.safetensors")
