"""Export of a committee that predicts flow for images that are run in tiles: model_coarse.onnx and model_finest.onnx.

Together they are the committee of model.onnx, cut between its finest scale and the others. An instance normalisation
takes its mean and variance over the whole image, which no tile sees: the finest graph is given them, and gives the sums
from which they are made, a layer a pass (contract/tiles.py).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from contract.signatures import FIELD_COARSE, FIELD_FINEST, Signature
from training.export.potential import OPSET, quiet, save_onnx
from training.networks.msnet import MSNet, ScaleNetwork, mask, pyramid, recursed, upsampled
from training.networks.permeability import PermeabilityCommittee, trends_of

_LONGEST = 4096


class CoarseScales(nn.Module):
    """Every scale of each member but the finest."""

    moments: Tensor

    def __init__(self, committee: PermeabilityCommittee) -> None:
        super().__init__()
        self.committee = committee
        layers, channels = len(_norms(committee.networks[0])), committee.config.filters
        zeros = torch.zeros(len(committee.networks), layers, channels)
        self.register_buffer("moments", torch.stack([zeros, zeros + 1.0], dim=-1))

    def forward(self, distance: Tensor, pore: Tensor, relative: Tensor) -> tuple[Tensor, Tensor]:
        """Tensors of contract.signatures.FIELD_COARSE."""
        features = torch.stack([distance / self.committee.mean_distance, relative], dim=1)
        each = (network.scale_networks[:-1] for network in self.committee.networks)
        answers = [recursed(networks, features, pore.unsqueeze(1))[-1].squeeze(1) for networks in each]
        return torch.cat(answers), 1.0 * self.moments


class FinestScale(nn.Module):
    """The finest scale of each member on a tile."""

    def __init__(self, committee: PermeabilityCommittee) -> None:
        super().__init__()
        self.committee = committee

    def forward(
        self, distance: Tensor, relative: Tensor, counted: Tensor, means: Tensor, coarse: Tensor, moments: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Tensors of contract.signatures.FIELD_FINEST."""
        pore = (distance > 0.0).to(distance.dtype).unsqueeze(1)
        features = torch.stack([distance / self.committee.mean_distance, relative], dim=1)
        spread = mask(pore, pyramid(pore, 2)[0])
        rates = self.committee.factor * trends_of(means[:1], means[1:])[0].matmul(self.committee.trend.T).exp()
        ratios, sums = [], []
        for m, network in enumerate(self.committee.networks):
            above = spread * upsampled(coarse[m : m + 1].unsqueeze(1))
            answer, found = _normalised(network.finest, torch.cat([features, above], dim=1), moments[m], counted)
            ratios.append((rates[m] * (1.0 + answer + above) * pore).squeeze(1))
            sums.append(found)
        return torch.cat(ratios), torch.stack(sums)


def export_tiles(committee: PermeabilityCommittee, folder: Path) -> None:
    """Write both graphs beside model.onnx; a network of one scale has nothing to cut, and gets none."""
    if committee.config.scales < 2:
        return
    committee = committee.to("cpu", torch.float32).eval()
    half = committee.config.divisor // 2
    coarse, finest = CoarseScales(committee), FinestScale(committee)
    pore = torch.rand(1, 2 * half, 3 * half, 4 * half)
    sizes = {"distance": half, "pore": half, "relative": half}
    _write(coarse, (3.0 * pore, pore, 0.5 * pore), sizes, FIELD_COARSE, folder / "model_coarse.onnx")
    distance = torch.ones(1, 4, 6, 8)
    answers = torch.rand(len(committee.networks), 2, 3, 4)
    example = (distance, 0.5 * distance, torch.ones_like(distance), torch.ones(2), answers, coarse.moments)
    sizes = {"distance": 2, "relative": 2, "counted": 2, "coarse": 1}
    _write(finest, example, sizes, FIELD_FINEST, folder / "model_finest.onnx")


def _norms(network: MSNet) -> list[nn.Module]:
    return [layer for layer in network.finest.body if isinstance(layer, _InstanceNorm)]


def _normalised(scale: ScaleNetwork, x: Tensor, moments: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """One scale with given moments [L, F, 2], and the sums [L, F, 2] from which they are made."""
    sums: list[Tensor] = []
    for layer in scale.body:
        if isinstance(layer, _InstanceNorm):
            mean, variance = (moments[len(sums), :, i].reshape(1, -1, 1, 1, 1) for i in (0, 1))
            here = x * counted
            lines = torch.stack([here.sum(dim=4), (here * x).sum(dim=4)], dim=-1)  # float32 along lines alone
            sums.append(lines.double().sum(dim=(2, 3))[0])
            x = (x - mean) * torch.rsqrt(variance + layer.eps)
        else:
            x = layer(x)
    return x, torch.stack(sums)


def _write(
    module: nn.Module, example: tuple[Tensor, ...], multiples: dict[str, int], signature: Signature, path: Path
) -> None:
    """Export with free lengths, each a multiple of what is said for its tensor."""
    free: dict[str, Any] = {name: torch.export.Dim(name, min=1, max=_LONGEST) for name in ("x", "y", "z")}
    names = [spec.name for spec in signature.inputs]
    shapes = tuple(
        {axis: multiples[name] * free[letter] for axis, letter in ((1, "x"), (2, "y"), (3, "z"))}
        if name in multiples
        else {}
        for name in names
    )
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=[spec.name for spec in signature.outputs],
            dynamic_shapes=shapes,
            verbose=False,
        )
    save_onnx(program, signature, path)
