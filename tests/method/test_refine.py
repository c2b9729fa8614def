"Refinement by colour: the formula, at a photograph's size without a stack of all neighbours."

import torch

from ctm.refine import _neighbours, _shifted, neighbour_shares, refine_maps


def test_shares_are_those_of_the_formula():
    image = 255 * torch.rand(3, 40, 30, generator=torch.Generator().manual_seed(0))
    image[:, :9, :9] = 17.0  # one colour
    offsets = _neighbours(5)
    around = torch.stack(_shifted(image, offsets))
    deviation = torch.cat([around, image[None]]).std(0).clamp(min=1e-6)
    stacked = (-((around - image) / (0.3 * deviation)).square().mean(1)).softmax(0)
    torch.testing.assert_close(neighbour_shares(image, 5), stacked, atol=1e-5, rtol=0)


def test_refined_maps_do_not_depend_on_the_unit_of_the_image():
    g = torch.Generator().manual_seed(0)
    image = torch.rand(3, 30, 40, generator=g)
    maps = torch.rand(2, 30, 40, generator=g)
    found = refine_maps(maps, image, 3)
    torch.testing.assert_close(found, refine_maps(maps, 255 * image - 40, 3), atol=1e-4, rtol=0)
    assert found.min() >= maps.min() - 1e-6 and found.max() <= maps.max() + 1e-6
