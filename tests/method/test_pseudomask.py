"Pseudo-masks: properties that hold for whatever maps."

import torch
from hypothesis import given
from hypothesis import strategies as st

from ctm.core import IGNORE
from ctm.pseudomask import pseudo_mask
from tests.tools import SIDES


@given(
    b=st.integers(1, 3), c=st.integers(1, 6), grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(SIDES, SIDES), threshold=st.sampled_from(["mean", "value:0.4", "quantile:0.75"]),
    merge=st.sampled_from(["ascending", "argmax"]), fill=st.sampled_from(["majority", "nearest", "none"]),
    background=st.none() | st.integers(0, 6), given_labels=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_pseudo_masks(b, c, grid, size, threshold, merge, fill, background, given_labels, seed):
    g = torch.Generator().manual_seed(seed)
    maps, prob = torch.rand(b, c, *grid, generator=g), torch.rand(b, c, generator=g)
    present = (torch.rand(b, c, generator=g) < 0.5).float() if given_labels else None
    background = None if background is None else min(background, c)
    options = dict(threshold=threshold, merge=merge, fill=fill, background=background)
    mask = pseudo_mask(maps, prob, size, present, **options)
    assert mask.shape == (b, *size) and mask.dtype == torch.int64
    known = prob > 0.5 if present is None else present.bool()
    for item, classes in zip(mask, known, strict=True):
        values = [i + (background is not None and i >= background) for i in classes.nonzero().flatten().tolist()]
        allowed = {*values, IGNORE if background is None else background}
        assert set(item.unique().tolist()) <= allowed, "only classes that are present, and no class"
        if background is None and values and fill != "none":
            assert IGNORE not in item, "every pixel is filled where the image has a class"
    alone = torch.cat([
        pseudo_mask(maps[i : i + 1], prob[i : i + 1], size, None if present is None else present[i : i + 1], **options)
        for i in range(b)
    ])  # fmt: skip
    assert torch.equal(mask, alone), "an image's mask does not depend on its batch"
    order = torch.randperm(c, generator=g)
    if prob.unique().numel() == prob.numel() and background is None and merge == "ascending" and fill != "majority":
        moved = pseudo_mask(
            maps[:, order], prob[:, order], size, None if present is None else present[:, order], **options
        )
        back = torch.cat([order, torch.full((IGNORE + 1 - c,), IGNORE)])
        assert torch.equal(back[moved], mask), "the order of the classes does not matter"
