"""TVConv computes what its definition says, in every form; its kernels are made once for inference."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from nonet.research.tvconv import layer as tvconv_layer  # noqa: E402
from nonet.research.tvconv.layer import (  # noqa: E402
    GeneratorConfig,
    TVConv,
    by_shifting,
    by_unfolding,
    by_window_views,
    output_size,
    with_gradients,
)
from nonet.research.tvconv.mobilenet import FaceNet, FaceNetConfig, deployed, embed, freeze  # noqa: E402

SMALL = GeneratorConfig(2, 4, 1)
FORMS = (by_unfolding, by_shifting, by_window_views, with_gradients)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def by_loops(picture: Tensor, kernels: Tensor, stride: int) -> Tensor:
    """The definition, one value after the other."""
    count, channels, height, width = picture.shape
    side = round(kernels.shape[1] ** 0.5)
    border = side // 2
    rows, columns = kernels.shape[2:]
    answer = torch.zeros(count, channels, rows, columns, dtype=picture.dtype)
    for i in range(rows):
        for j in range(columns):
            for u in range(side):
                for v in range(side):
                    y, x = stride * i + u - border, stride * j + v - border
                    if 0 <= y < height and 0 <= x < width:
                        answer[:, :, i, j] += kernels[:, u * side + v, i, j] * picture[:, :, y, x]
    return answer


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_every_form_is_the_definition(
    form: Callable[[Tensor, Tensor, int], Tensor], stride: int, kernel: int
) -> None:
    picture = torch.randn(2, 3, 7, 5)
    kernels = torch.randn(3, kernel**2, *output_size((7, 5), stride))
    expected = by_loops(picture.double(), kernels.double(), stride)
    assert (form(picture, kernels, stride).double() - expected).abs().max() < 1e-5


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_those_of_finite_differences(stride: int) -> None:
    picture = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    kernels = torch.randn(2, 9, *output_size((5, 4), stride), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: with_gradients(x, w, stride), (picture, kernels))


def test_the_forms_agree_on_every_layer_of_the_face_network() -> None:
    network = FaceNet(FaceNetConfig(width=0.1, generator=SMALL)).eval()
    layers = network.tvconvs()
    assert [(layer.stride, layer.output_size[0]) for layer in layers] == [
        (1, 96), (2, 48), (1, 48), (2, 24), (1, 24), (1, 24), (2, 12), (1, 12), (1, 12), (1, 12),
        (1, 12), (1, 12), (1, 12), (2, 6), (1, 6), (1, 6), (1, 6),
    ]  # fmt: skip
    with torch.no_grad():
        for layer in layers:
            picture, kernels = torch.randn(2, layer.channels, *layer.size), layer.kernels()
            expected = by_unfolding(picture, kernels, layer.stride)
            scale = expected.abs().max()
            for form in FORMS[1:]:
                found = form(picture, kernels, layer.stride)
                assert (found - expected).abs().max() <= 1e-5 * scale


def test_a_row_stride_without_its_factor_reads_wrong_rows() -> None:
    """The defect of the authors' cached layer: right at stride 1, wrong at stride 2."""

    def defective(picture: Tensor, kernels: Tensor, stride: int) -> Tensor:
        padded = F.pad(picture, (1,) * 4).contiguous()
        count, channels, rows, columns = padded.shape
        windows = padded.as_strided(
            (count, channels, 3, 3, *kernels.shape[2:]),
            (channels * rows * columns, rows * columns, columns, 1, columns, stride),
        )
        return (windows * kernels.view(channels, 3, 3, *kernels.shape[2:])).sum((2, 3))

    picture = torch.randn(1, 2, 8, 8)
    for stride, agrees in ((1, True), (2, False)):
        kernels = torch.randn(2, 9, *output_size((8, 8), stride))
        expected = by_unfolding(picture, kernels, stride)
        assert torch.allclose(defective(picture, kernels, stride), expected, atol=1e-5) is agrees
        assert torch.allclose(by_window_views(picture, kernels, stride), expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_constant_kernels_make_a_depthwise_convolution(stride: int) -> None:
    picture, plain = torch.randn(2, 3, 8, 6), torch.randn(3, 1, 3, 3)
    kernels = plain.view(3, 9, 1, 1).expand(3, 9, *output_size((8, 6), stride)).contiguous()
    expected = F.conv2d(picture, plain, stride=stride, padding=1, groups=3)
    assert (by_shifting(picture, kernels, stride) - expected).abs().max() < 1e-5


def test_it_varies_with_translation_and_a_constant_kernel_does_not() -> None:
    picture, kernels = torch.randn(1, 2, 9, 9), torch.randn(2, 9, 9, 9)
    moved = torch.roll(picture, 1, 3)
    inside = (..., slice(2, -2), slice(3, -2))

    def difference(weights: Tensor) -> float:
        here, there = by_shifting(moved, weights, 1), torch.roll(by_shifting(picture, weights, 1), 1, 3)
        return float((here - there)[inside].abs().max())

    assert difference(kernels) > 0.1
    assert difference(kernels[..., :1, :1].expand(2, 9, 9, 9)) < 1e-5


def test_an_answer_does_not_depend_on_its_batch() -> None:
    layer = TVConv(3, (8, 8), generator=SMALL).eval()
    pictures = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        together = layer(pictures)
        for number in range(5):
            assert torch.equal(layer(pictures[number : number + 1])[0], together[number])


def test_another_size_and_an_even_kernel_are_refused() -> None:
    with pytest.raises(ValueError, match="made for 8 x 6"):
        TVConv(2, (8, 6), generator=SMALL)(torch.zeros(1, 2, 6, 8))
    with pytest.raises(ValueError, match="odd"):
        TVConv(2, (8, 6), kernel=2)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the runs of all generators."""
    found: list[int] = []
    forward = tvconv_layer.WeightGenerator.forward

    def counted(self: nn.Module, maps: Tensor) -> Tensor:
        found.append(1)
        return forward(self, maps)

    monkeypatch.setattr(tvconv_layer.WeightGenerator, "forward", counted)
    return found


def test_kernels_are_made_once_until_something_changes(runs: list[int]) -> None:
    layer = TVConv(2, (6, 6), generator=SMALL).eval().freeze()
    assert len(runs) == 1
    picture = torch.randn(1, 2, 6, 6)
    with torch.no_grad():
        before = [layer(picture) for _ in range(3)][-1]
    assert len(runs) == 1
    assert "_kept" not in str(list(layer.state_dict()))

    optimiser = torch.optim.SGD(layer.parameters(), 0.1)
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    with torch.no_grad():
        after = layer(picture)
    assert len(runs) > 1
    assert not torch.equal(before, after)

    layer.freeze()
    layer.train()
    made = len(runs)
    with torch.no_grad():
        layer(picture)
    assert len(runs) == made + 1


def test_a_copied_and_a_loaded_layer_do_not_use_the_kernels_of_another() -> None:
    first = TVConv(2, (6, 6), generator=SMALL).eval().freeze()
    other = TVConv(2, (6, 6), generator=SMALL).eval()
    first.load_state_dict(other.state_dict())
    twin = copy.deepcopy(first)
    with torch.no_grad():
        picture = torch.randn(1, 2, 6, 6)
        assert torch.equal(first(picture), other(picture))
        assert torch.equal(twin(picture), other(picture))


def test_the_deployed_form_has_no_generator_and_the_same_answers(runs: list[int]) -> None:
    network = freeze(FaceNet(FaceNetConfig(width=0.1, size=32, stem_stride=2, generator=SMALL)))
    faces = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    expected = embed(network, faces)
    plain, half = (deployed(copy.deepcopy(network), half=stored) for stored in (False, True))
    del runs[:]
    assert torch.equal(embed(plain, faces), expected)
    assert float((embed(half, faces) * expected).sum(1).min()) > 0.999
    assert runs == []
    assert not [name for name in plain.state_dict() if "generator" in name or "affinity" in name]
    again = copy.deepcopy(plain)
    again.load_state_dict(plain.state_dict())
    assert torch.equal(embed(again, faces), expected)
