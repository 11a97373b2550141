"""The contract that every network's test subclasses."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch

from networks import build
from networks.contract import SegmentationNetwork


class NetworkContract:
    """What prediction and distillation rely on; a network's test names it and states its channels.

    Strides are stated where they differ: `first_stride` of e1, each next one doubling; `strides` of e1..e5
    where they do not double; `decoder_strides` of d5..d2 where they are not e4..e1's; `without_gradient` names
    the parameters that the logits do not depend on, by design.
    """

    name: str
    encoder: tuple[int, ...]
    decoder: tuple[int, ...]
    first_stride = 2
    strides: tuple[int, ...] = ()
    decoder_strides: tuple[int, ...] = ()
    without_gradient: tuple[str, ...] = ()

    def network(self, seed: int = 0) -> SegmentationNetwork:
        torch.manual_seed(seed)
        return build(self.name, classes=3)

    def test_features_are_what_the_channel_lists_say(self) -> None:
        network = self.network().eval()
        assert network.channels == (self.encoder, self.decoder, 3)
        strides = self.strides or tuple(self.first_stride * 2**i for i in range(5))
        image = torch.randn(2, 1, 64, 96)
        with torch.no_grad():
            features = network.features(image)
            assert torch.equal(network(image), features.logits)
        for maps, channels, stride in zip(features.encoder, self.encoder, strides, strict=True):
            assert maps.shape == (2, channels, 64 // stride, 96 // stride)
        for maps, channels, stride in zip(
            features.decoder, self.decoder, self.decoder_strides or strides[3::-1], strict=True
        ):
            assert maps.shape == (2, channels, 64 // stride, 96 // stride)
        assert features.logits.shape == (2, 3, 64, 96)

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

    def test_onnx_gives_the_same_logits(self, tmp_path: Path) -> None:
        network, image, path = self.network().eval(), torch.randn(1, 1, 64, 64), tmp_path / "network.onnx"
        torch.onnx.export(network, (image,), path, dynamo=True, external_data=False, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), network(image), rtol=0, atol=1e-4)
