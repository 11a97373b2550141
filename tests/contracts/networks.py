"""The contract that every network's test subclasses."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import onnxruntime
import pytest
import torch

from engine.export.fold import fold_decision
from networks import build
from networks.contract import Channels, SegmentationNetwork


def layer_types(network: SegmentationNetwork) -> set[type]:
    return {type(module) for module in network.modules() if not list(module.children())}


@lru_cache(maxsize=2)
def build_once(name: str, seed: int) -> SegmentationNetwork:
    """For the tests of one network, which follow each other and change a copy."""
    torch.manual_seed(seed)
    return build(name, classes=3)


class StageContract:
    """What a network says of its stages: all that is tested of one with the layers of another that is under
    `NetworkContract`; a network's test names it and states its channels.

    decoder: empty where there is none. Strides are stated where they differ from the usual ones: `strides` of e1..e5,
    `decoder_strides` of d5..d2 where they are not e4..e1's.
    """

    name: str
    encoder: tuple[int, ...]
    decoder: tuple[int, ...] = ()
    strides: tuple[int, ...] = (2, 4, 8, 16, 32)
    decoder_strides: tuple[int, ...] = ()

    depth: tuple[int, ...] = ()
    """Slices of the images of a volumetric network."""

    def network(self, seed: int = 0) -> SegmentationNetwork:
        return deepcopy(build_once(self.name, seed))

    def images(self, count: int, *size: int) -> torch.Tensor:
        return torch.randn(count, 1, *self.depth, *size)

    def test_stages_have_the_channels_and_strides_that_the_network_says(self) -> None:
        network = self.network().eval()
        expected = Channels(self.encoder, self.decoder, 3, self.strides, self.decoder_strides)
        assert network.channels.stages == expected.stages
        assert network.channels.has_decoder == expected.has_decoder
        image = self.images(2, 64, 96)
        with torch.no_grad():
            features = network.features(image)
            assert torch.equal(network(image), features.logits)
        assert len(features.encoder) == 5 and len(features.decoder) == 4
        for name, channels, stride in network.channels.stages:
            sizes = (side // stride for side in image.shape[2:])
            assert features.stage(name).shape == (2, channels, *sizes), name
        own = {id(maps) for maps in features.encoder}
        assert all((id(maps) not in own) == network.channels.has_decoder for maps in features.decoder)


class NetworkContract(StageContract):
    """What prediction and distillation rely on.

    without_gradient: the parameters that the logits do not depend on, by design.
    """

    without_gradient: tuple[str, ...] = ()
    exported_as: str | None = None
    """The network that has the same layers, only fewer, and whose export is tested in place of this one's."""

    @pytest.mark.parametrize("size", [(65, 47), (20, 33)])
    def test_logits_have_the_size_of_any_image(self, size: tuple[int, int]) -> None:
        with torch.no_grad():
            assert self.network().eval()(torch.randn(1, 1, *size)).shape == (1, 3, *size)

    def test_trains_at_batch_size_1_even_when_the_deepest_map_is_one_pixel(self) -> None:
        """The logits alone reach every parameter, as DDP demands; through all stages gradients are finite."""
        network = self.network().train()
        features = network.features(torch.randn(1, 1, 32, 32))
        features.logits.square().mean().backward(retain_graph=True)
        unreached = {name for name, parameter in network.named_parameters() if parameter.grad is None}
        assert unreached == set(self.without_gradient)
        sum(maps.square().mean() for maps in (*features.encoder, *features.decoder)).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), name

    def test_state_dict_makes_another_network_the_same(self) -> None:
        network, other = self.network(seed=0).eval(), self.network(seed=1).eval()
        image = torch.randn(1, 1, 64, 64)
        with torch.no_grad():
            expected = network(image)
            assert not torch.equal(other(image), expected)
            other.load_state_dict(network.state_dict())
            assert torch.equal(other(image), expected)

    def test_a_decision_folds_into_its_last_bias(self) -> None:
        network, image = self.network().eval(), torch.randn(2, 1, 64, 96)
        with torch.no_grad():
            difference = fold_decision(network, (0.5, -2.0))(image) - network(image)
        expected = torch.tensor([0.0, 0.5, -2.0])[:, None, None].expand_as(difference)
        torch.testing.assert_close(difference, expected, rtol=0, atol=1e-3)

    def test_onnx_gives_the_same_logits(self, tmp_path: Path) -> None:
        if self.exported_as is not None:
            assert layer_types(self.network()) <= layer_types(build_once(self.exported_as, seed=0))
            return
        network, image, path = self.network().eval(), torch.randn(1, 1, 64, 64), tmp_path / "network.onnx"
        torch.onnx.export(network, (image,), path, dynamo=True, external_data=False, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        with torch.no_grad():
            expected = network(image)
        difference = (torch.from_numpy(logits) - expected).abs().max()
        assert difference <= 1e-4 * expected.abs().max()
