"""Mosaicking, packing and interpolation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.research.wild_jdd.bayer import (
    Phase,
    bilinear,
    from_rggb,
    mosaic,
    pack,
    packed_bilinear_kernels,
    pad_to_even,
    sampling_mask,
    to_rggb,
    unpack,
)

SIZES = st.integers(4, 12).map(lambda half: 2 * half)


@pytest.mark.parametrize("phase", list(Phase))
def test_mosaic_keeps_one_reading_per_pixel(phase):
    mask = sampling_mask(8, 10, phase)
    assert torch.equal(mask.sum(dim=0), torch.ones(8, 10))
    image = torch.rand(2, 3, 8, 10)
    readings = mosaic(image, phase)
    assert torch.equal(readings[:, 0, 0, 0], image[:, "RGB".index(phase.value[0]), 0, 0])
    assert torch.equal(readings[:, 0, 1, 1], image[:, "RGB".index(phase.value[3]), 1, 1])


@pytest.mark.parametrize("phase", list(Phase))
@settings(max_examples=20, deadline=None)
@given(height=SIZES, width=SIZES)
def test_every_phase_becomes_rggb_and_comes_back(phase, height, width):
    image = torch.rand(1, 3, height, width)
    readings = mosaic(image, phase)
    assert torch.equal(to_rggb(readings, phase), mosaic(to_rggb(image, phase)))
    assert torch.equal(from_rggb(to_rggb(readings, phase), phase), readings)


@settings(max_examples=20, deadline=None)
@given(height=SIZES, width=SIZES)
def test_packing_loses_nothing(height, width):
    readings = torch.rand(2, 1, height, width)
    assert torch.equal(unpack(pack(readings)), readings)
    assert pack(readings).shape == (2, 4, height // 2, width // 2)


def test_packed_planes_are_red_green_green_blue():
    image = torch.stack([torch.full((4, 4), float(c)) for c in (1, 2, 3)])[None]
    assert pack(mosaic(image))[0, :, 0, 0].tolist() == [1, 2, 2, 3]


@pytest.mark.parametrize("shape", [(5, 6), (6, 5), (0, 3)])
def test_odd_sizes_are_refused(shape):
    with pytest.raises(ValueError, match="even height and width"):
        pack(torch.zeros(1, 1, *shape))


def test_bilinear_reproduces_flat_and_sloped_pictures():
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(14.0), indexing="ij")
    image = torch.stack([0.1 + 0.02 * x, 0.2 + 0.01 * y + 0.01 * x, torch.full_like(x, 0.7)])[None].double()
    result = bilinear(mosaic(image))
    assert torch.allclose(result[..., 1:-1, 1:-1], image[..., 1:-1, 1:-1], atol=1e-12)


def test_bilinear_as_a_convolution_of_packed_planes():
    image = torch.rand(1, 3, 16, 20)
    readings = mosaic(image)
    planes = torch.nn.functional.conv2d(pack(readings), packed_bilinear_kernels(), padding=1)
    packed = torch.nn.functional.pixel_shuffle(planes, 2)
    assert torch.allclose(packed[..., 2:-2, 2:-2], bilinear(readings)[..., 2:-2, 2:-2], atol=1e-6)


def test_mirrored_margin_keeps_the_phase():
    image = torch.rand(1, 3, 15, 18)
    padded, (left, right, top, bottom) = pad_to_even(mosaic(image), 6)
    mirrored = torch.nn.functional.pad(image, (left, right, top, bottom), mode="reflect")
    assert torch.equal(padded, mosaic(mirrored))
    with pytest.raises(ValueError, match="too small"):
        pad_to_even(mosaic(image), 16)


def test_bilinear_equals_the_reference_package():
    reference = pytest.importorskip("colour_demosaicing", reason="colour-demosaicing is not installed")
    readings = torch.rand(1, 1, 24, 32, dtype=torch.float64)
    expected = torch.from_numpy(reference.demosaicing_CFA_Bayer_bilinear(readings[0, 0].numpy(), "RGGB"))
    found = bilinear(readings)[0].permute(1, 2, 0)
    assert torch.allclose(found[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-6)
