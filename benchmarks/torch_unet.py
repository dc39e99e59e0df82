"""The peer: the default 3-D U-Net as a PyTorch user would write it."""

from collections.abc import Sequence
from typing import Any


def torch_unet(
    features: Sequence[int], bottleneck: int, channels: int = 4, classes: int = 3
) -> Any:
    """A `torch.nn.Module`: (B, channels, D, H, W) -> probabilities (B, classes, D, H, W)."""
    import torch
    from torch import nn

    def double_conv(inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for width in (inputs, outputs):
            layers += [
                nn.Conv3d(width, outputs, 3, padding=1),
                nn.InstanceNorm3d(outputs, affine=True),
                nn.LeakyReLU(0.01, inplace=True),
            ]
        return nn.Sequential(*layers)

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = (channels, *features)
            self.down = nn.ModuleList(
                double_conv(a, b) for a, b in zip(widths, features, strict=False)
            )
            self.bottleneck = double_conv(features[-1], bottleneck)
            wide = (*features[1:], bottleneck)
            self.up = nn.ModuleList(
                nn.ConvTranspose3d(b, a, 2, stride=2) for a, b in zip(features, wide, strict=True)
            )
            self.merge = nn.ModuleList(double_conv(2 * a, a) for a in features)
            self.head = nn.Conv3d(features[0], classes, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            skips = []
            for block in self.down:
                x = block(x)
                skips.append(x)
                x = nn.functional.max_pool3d(x, 2)
            x = self.bottleneck(x)
            for level in reversed(range(len(self.up))):
                x = self.merge[level](torch.cat([skips[level], self.up[level](x)], 1))
            return torch.sigmoid(self.head(x))

    torch.manual_seed(0)
    return UNet()
