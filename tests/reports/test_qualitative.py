"Pictures of photographs that are scored in their own sizes."

from ctm.datasets.voc2012 import load
from ctm.reports.qualitative import qualitative_figure
from ctm.synthetic.sets import make_synthetic

CHANGES = dict(embed_dim=32, depth=2, num_heads=4, epochs=1, resolution="own")
CHANGES |= dict(data=dict(resize=[64, 64], how="pad", lists=["train_aug", "val"]))


def test_photographs_are_shown_in_their_own_sizes(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    root = make_synthetic("voc2012", tmp_path, n=8)
    sizes = {load(root, "val", **CHANGES["data"]).original_size(index) for index in range(2)}
    figure = qualitative_figure("voc2012", methods=["paper"], changes=CHANGES, root=root, kept=tmp_path / "kept")
    image, truth, mask = (ax.images[0].get_array().shape[:2] for ax in figure.axes[:3])
    assert image == truth == mask and image in sizes and len(sizes) == 2
    assert not (tmp_path / "kept" / "masks").exists(), "masks of many sizes are no array"
