"""The small networks under the contract; then their papers' sizes, and their parts against plain computations."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from scipy.special import expit, softmax
from scipy.stats import norm as normal

from networks import build
from networks.blocks import ConvPool
from networks.count import count
from networks.enet import DownBottleneck, UpBottleneck, max_pool, max_unpool
from networks.erfnet import FactorizedResidual
from networks.espnet import ESP
from networks.malunet import ChannelBridge, DilatedGatedAttention, InvertedExternalAttention, SpatialBridge
from networks.mobilenet import MobileNetV2Encoder
from tests.contracts.networks import NetworkContract
from tests.golden.features import Array
from utils.errors import UserError

MOBILENET = (16, 24, 32, 96, 320)


class StopsAtStride8:
    """Three encoder stages at stride 8; decoder stages are an upsampling and its refinement, twice."""

    encoder, decoder = (16, 64, 128, 128, 128), (64, 64, 16, 16)
    strides, decoder_strides = (2, 4, 8, 8, 8), (4, 4, 2, 2)


class TestMobileNetV2(NetworkContract):
    name, encoder, decoder = "mobilenet_v2", MOBILENET, MOBILENET[3::-1]

    def test_costs_torchvisions_features_without_what_only_the_classifier_needs(self) -> None:
        features = torchvision.models.mobilenet_v2().features
        expected = sum(p.numel() for p in features[:18].parameters()) - 2 * 32 * 9
        assert count(build(self.name, classes=2), size=64)[0] == expected + 2 * 320 + 2


class TestUNetMobileNetV2(NetworkContract):
    name, encoder, decoder = "unet_mbv2", MOBILENET, (96, 64, 32, 16)


class TestENet(StopsAtStride8, NetworkContract):
    name = "enet"

    def test_costs_what_the_paper_says(self) -> None:
        parameters, _ = count(build(self.name, classes=19), size=64)
        assert parameters == pytest.approx(0.37e6, abs=0.01e6)


class TestERFNet(StopsAtStride8, NetworkContract):
    name = "erfnet"

    def test_costs_what_the_paper_says(self) -> None:
        parameters, _ = count(build(self.name, classes=20), size=64)
        assert parameters == pytest.approx(2.06e6, abs=0.005e6)


class TestESPNet(StopsAtStride8, NetworkContract):
    name, decoder = "espnet", (20, 20, 20, 20)

    def test_costs_what_the_paper_says(self) -> None:
        parameters, _ = count(build(self.name, classes=20), size=64)
        assert parameters == pytest.approx(0.364e6, abs=0.0005e6)


class TestMALUNet(NetworkContract):
    name, encoder, decoder = "malunet", (8, 16, 24, 32, 64), (32, 24, 16, 8)

    def test_costs_what_the_paper_says(self) -> None:
        """The paper's 0.175 M and 0.083 GFLOPs are for three input channels, and leave out the group norms."""
        network = build(self.name, classes=1)
        colour, pixels = 2 * 8 * 9, 256 * 256
        norms = sum(p.numel() for m in network.modules() if isinstance(m, torch.nn.GroupNorm) for p in m.parameters())
        parameters, macs = count(network, size=256)
        assert parameters + colour - norms == pytest.approx(0.175e6, abs=0.0005e6)
        assert macs + colour * pixels == pytest.approx(0.083e9, abs=0.0005e9)


@pytest.mark.parametrize("name", ["enet", "erfnet", "espnet", "malunet"])
def test_every_stage_is_a_map_of_its_own(name: str) -> None:
    torch.manual_seed(0)
    features = build(name, classes=2).eval().features(torch.randn(1, 1, 32, 32))
    for first, second in combinations((*features.encoder, *features.decoder), 2):
        assert first.shape != second.shape or not torch.equal(first, second)


@pytest.mark.parametrize("name", ["enet", "erfnet"])
def test_dropout_is_random_in_training_and_off_in_evaluation(name: str) -> None:
    torch.manual_seed(0)
    network, image = build(name, classes=2), torch.randn(2, 1, 32, 32)
    assert not torch.equal(network.train()(image), network(image))
    assert torch.equal(network.eval()(image), network(image))


@pytest.mark.parametrize("name", ["enet", "erfnet", "espnet", "malunet"])
def test_networks_without_imagenet_weights_say_so(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} has no ImageNet weights: .* mobilenet_v2"):
        build(name, classes=2, pretrained=True)


class TestPretrainedMobileNetV2:
    @pytest.fixture
    def imagenet_file(self, tmp_path: Path) -> Path:
        """Weights as torchvision publishes them, but random."""
        torch.manual_seed(1)
        path = tmp_path / "mobilenet_v2.pth"
        torch.save(torchvision.models.mobilenet_v2().state_dict(), path)
        return path

    def test_grey_network_equals_the_rgb_one_on_a_repeated_image(self, imagenet_file: Path) -> None:
        rgb = torchvision.models.mobilenet_v2()
        rgb.load_state_dict(torch.load(imagenet_file, weights_only=True))
        image = torch.randn(2, 1, 64, 64)
        with torch.no_grad():
            e5 = MobileNetV2Encoder(imagenet_file).eval()(image)[-1]
            expected = rgb.eval().features[:18](image.expand(-1, 3, -1, -1))
        torch.testing.assert_close(e5, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("name", ["mobilenet_v2", "unet_mbv2"])
    def test_networks_take_a_file(self, name: str, imagenet_file: Path) -> None:
        weights = torch.load(imagenet_file, weights_only=True)
        state = build(name, classes=2, pretrained=imagenet_file).state_dict()
        assert torch.equal(state["encoder.features.17.conv.2.weight"], weights["features.17.conv.2.weight"])

    def test_weights_of_another_network(self, imagenet_file: Path) -> None:
        with pytest.raises(UserError, match=r"mobilenet_v2\.pth: does not fit .*resnet18"):
            build("resnet_18", classes=2, pretrained=imagenet_file)


def convolve(x: Array, conv: torch.nn.Module) -> Array:
    """The zero-padded convolution of [B, C, H, W] that keeps the size, by its definition, one kernel element a time."""
    weight = conv.weight.detach().double().numpy()
    bias = np.zeros(len(weight)) if conv.bias is None else conv.bias.detach().double().numpy()
    (rows, columns), (down, right) = conv.padding, conv.dilation
    padded = np.pad(x, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
    height, width = x.shape[2:]
    result = np.zeros((len(x), len(weight), height, width)) + bias[:, None, None]
    outputs_per_group = len(weight) // conv.groups
    for o, kernel in enumerate(weight):
        first = o // outputs_per_group * weight.shape[1]
        for c, i, j in np.ndindex(kernel.shape):
            result[:, o] += kernel[c, i, j] * padded[:, first + c, i * down :, j * right :][:, :height, :width]
    return result


def fresh_batch_norm(x: Array) -> Array:
    """What a new batch norm does in evaluation."""
    return x / np.sqrt(1 + 1e-5)


def prelu(x: Array) -> Array:
    """With PyTorch's first slope."""
    return np.where(x > 0, x, 0.25 * x)


def group_norm(x: Array, groups: int = 4) -> Array:
    grouped = x.reshape(len(x), groups, -1)
    centred = grouped - grouped.mean(axis=2, keepdims=True)
    return (centred / np.sqrt(grouped.var(axis=2, keepdims=True) + 1e-5)).reshape(x.shape)


def gelu(x: Array) -> Array:
    return x * normal.cdf(x)


def random_maps(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, channels, 6, 8, generator=torch.Generator().manual_seed(seed))


def check(module: torch.nn.Module, maps: torch.Tensor, expected: Array) -> None:
    np.testing.assert_allclose(module.eval()(maps).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


class TestUnpooling:
    @pytest.mark.parametrize("maps", [random_maps(5), random_maps(5).round(), torch.zeros(2, 5, 6, 8)])
    def test_equals_pytorchs_also_where_maxima_tie(self, maps: torch.Tensor) -> None:
        expected, indices = F.max_pool2d(maps, kernel_size=2, return_indices=True)
        pooled, where = max_pool(maps)
        assert torch.equal(pooled, expected)
        values = torch.randn_like(pooled)
        assert torch.equal(max_unpool(values, where), F.max_unpool2d(values, indices, kernel_size=2))

    def test_gradients_equal_pytorchs(self) -> None:
        gradients = []
        for unpooled in (
            lambda x: max_unpool(*max_pool(x)),
            lambda x: F.max_unpool2d(*F.max_pool2d(x, kernel_size=2, return_indices=True), kernel_size=2),
        ):
            maps = random_maps(3).requires_grad_()
            unpooled(maps).pow(3).sum().backward()
            gradients.append(maps.grad)
        torch.testing.assert_close(*gradients)

    def test_bottlenecks_pool_and_unpool_around_their_branches(self) -> None:
        """With the branches silenced, a value goes back to where the encoder's maximum lay."""
        torch.manual_seed(0)
        maps, down, up = random_maps(16).abs(), DownBottleneck(16, 64, dropout=0.1), UpBottleneck(64, 16, dropout=0.1)
        for module in (down, up):
            torch.nn.init.zeros_(module.extension[5].weight)
        pooled, indices = F.max_pool2d(maps, kernel_size=2, return_indices=True)
        with torch.no_grad():
            halved, where = down.eval()(maps)
        assert torch.equal(halved[:, :16], pooled) and not halved[:, 16:].any()
        values = torch.from_numpy(fresh_batch_norm(convolve(halved.double().numpy(), up.project[0])))
        expected = prelu(F.max_unpool2d(values, indices, kernel_size=2).numpy())
        np.testing.assert_allclose(up.eval()(halved, where).detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_initial_block_joins_convolution_and_pooling() -> None:
    torch.manual_seed(0)
    module, maps = ConvPool(3, 8), random_maps(3)
    convolved = convolve(maps.double().numpy(), module.conv)[:, :, ::2, ::2]
    pooled = maps.double().numpy().reshape(2, 3, 3, 2, 4, 2).max(axis=(3, 5))
    check(module, maps, fresh_batch_norm(np.concatenate((convolved, pooled), axis=1)))


@pytest.mark.parametrize("dilation", [1, 2])
def test_factorized_residual_is_two_pairs_of_one_dimensional_convolutions(dilation: int) -> None:
    torch.manual_seed(0)
    module, maps = FactorizedResidual(4, dropout=0.3, dilation=dilation), random_maps(4)
    first, second, third, fourth = (m for m in module.modules() if isinstance(m, torch.nn.Conv2d))
    assert [conv.kernel_size for conv in (first, second, third, fourth)] == [(3, 1), (1, 3), (3, 1), (1, 3)]
    x = maps.double().numpy()
    middle = np.maximum(fresh_batch_norm(convolve(np.maximum(convolve(x, first), 0), second)), 0)
    branch = fresh_batch_norm(convolve(np.maximum(convolve(middle, third), 0), fourth))
    check(module, maps, np.maximum(x + branch, 0))


@pytest.mark.parametrize("residual", [True, False])
def test_esp_fuses_its_branches_hierarchically(residual: bool) -> None:
    torch.manual_seed(0)
    module, maps = ESP(12, 12, residual=residual), random_maps(12)
    reduced = convolve(maps.double().numpy(), module.reduce)
    b1, b2, b4, b8, b16 = (convolve(reduced, branch) for branch in module.branches)
    assert [b.shape[1] for b in (b1, b2, b4, b8, b16)] == [4, 2, 2, 2, 2]
    fused = np.concatenate((b1, b2, b2 + b4, b2 + b4 + b8, b2 + b4 + b8 + b16), axis=1)
    normed = fresh_batch_norm(fused + residual * maps.double().numpy())
    check(module, maps, prelu(normed))


class TestMALUNetParts:
    def test_external_attention(self) -> None:
        torch.manual_seed(0)
        module, maps = InvertedExternalAttention(8), random_maps(8)
        x = maps.double().numpy()
        keys, values = (m.weight.detach().double().numpy()[:, :, 0] for m in (module.keys, module.values))
        assert keys.shape == (32, 8) and values.shape == (8, 32)
        attention = softmax(keys @ convolve(x, module.query).reshape(2, 8, 48), axis=2)
        attention /= attention.sum(axis=1, keepdims=True)
        attended = convolve((values @ attention).reshape(x.shape), module.out[0])
        check(module, maps, gelu(x + group_norm(attended)))

    def test_dilated_gated_attention(self) -> None:
        torch.manual_seed(0)
        module, maps = DilatedGatedAttention(8, 12), random_maps(8)
        quarters = np.split(maps.double().numpy(), 4, axis=1)
        dilated = np.concatenate([convolve(q, conv) for q, conv in zip(quarters, module.dilated, strict=True)], axis=1)
        x = gelu(convolve(group_norm(dilated), module.mix[1]))

        def separable(x: Array, block: torch.nn.Module) -> Array:
            return convolve(group_norm(convolve(x, block[0])), block[2])

        gated = module.gated
        product = expit(separable(x, gated.gate[0])) * gelu(separable(x, gated.value[0]))
        check(module, maps, gelu(separable(product, gated.out[0])) + convolve(x, gated.shortcut))

    def test_spatial_bridge_weighs_pixels(self) -> None:
        torch.manual_seed(0)
        module, stages = SpatialBridge(), [random_maps(3), random_maps(5, seed=1)]
        for bridged, maps in zip(module(stages), stages, strict=True):
            x = maps.double().numpy()
            pooled = np.stack((x.mean(axis=1), x.max(axis=1)), axis=1)
            expected = x * (1 + expit(convolve(pooled, module.conv)))
            np.testing.assert_allclose(bridged.detach().numpy(), expected, rtol=1e-4, atol=1e-5)

    def test_channel_bridge_weighs_channels_by_those_of_all_stages(self) -> None:
        torch.manual_seed(0)
        module, stages = ChannelBridge((3, 5)), [random_maps(3), random_maps(5, seed=1)[..., :3, :4]]
        pooled = np.concatenate([maps.double().numpy().mean(axis=(2, 3)) for maps in stages], axis=1)
        kernel = module.mix.weight.detach().double().numpy().ravel()
        mixed = np.stack([np.convolve(row, kernel[::-1], mode="same") for row in pooled])
        for bridged, maps, weigh in zip(module(stages), stages, module.weigh, strict=True):
            matrix, bias = (p.detach().double().numpy() for p in (weigh.weight, weigh.bias))
            expected = maps.double().numpy() * (1 + expit(mixed @ matrix.T + bias))[:, :, None, None]
            np.testing.assert_allclose(bridged.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
