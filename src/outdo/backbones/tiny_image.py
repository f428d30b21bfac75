"""`tiny-image`: a network of a few thousand weights for tests. Random but seeded weights, no download, any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outdo.contracts import Kind, Origin

NAME = "tiny-image"
WIDTHS = (8, 16, 16, 24, 24, 32)
CLASSES = 10


class TinyImage:
    kind: Kind = "image"
    summary = "a tiny seeded network for tests"
    default = NAME

    def names(self) -> list[str]:
        return [NAME]

    def offers(self, name: str) -> bool:
        return name == NAME

    def load(self, name: str, *, preprocessing: Mapping[str, Any] | None = None) -> Any:
        from outdo.backbones import _image, _weights

        module = network()
        origin = Origin("seed 0", _weights.hash_tensors(module.state_dict()), "apache-2.0")
        own = {"kind": "image", "size": 32, "fit": "squash", "store": None, "mean": [0.5] * 3, "std": [0.5] * 3,
               "interpolation": "bilinear"}
        return _image.ImageBackbone(NAME, module, origin, _weights.overriding(own, preprocessing))


def network() -> Any:
    """Six blocks of two convolutions with batch norm, the first of each pair depthwise; timm's methods."""
    import torch
    from torch import nn

    class Net(nn.Module):
        num_classes = CLASSES

        def __init__(self) -> None:
            super().__init__()
            sizes = zip((3, *WIDTHS), WIDTHS, strict=False)
            self.blocks = nn.Sequential(*(block(ins, outs, 2 - n % 2) for n, (ins, outs) in enumerate(sizes)))
            self.classifier = nn.Linear(WIDTHS[-1], CLASSES)

        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks(x)  # type: ignore[no-any-return]

        def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
            x = x.mean((2, 3))
            return x if pre_logits else self.classifier(x)  # type: ignore[no-any-return]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.forward_head(self.forward_features(x))

        def get_classifier(self) -> nn.Module:
            return self.classifier

    def block(ins: int, outs: int, stride: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(ins, ins, 3, stride, 1, groups=ins, bias=False), nn.BatchNorm2d(ins), nn.ReLU(),
            nn.Conv2d(ins, outs, 1, bias=False), nn.BatchNorm2d(outs), nn.ReLU(),
        )

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Net()
        for conv in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
            nn.init.kaiming_normal_(conv.weight)  # the default shrinks what differs between images, block by block
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.uniform_(norm.weight, 0.8, 1.6)
            nn.init.uniform_(norm.bias, -0.1, 0.1)
    return net


PLUGIN = TinyImage()
