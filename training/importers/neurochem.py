"""Published ANI networks in NeuroChem's files: descriptor constants, self energies, and the weights of a committee.

    <model>/<descriptor>.params                  key = value
    <model>/sae_linfit.dat                       element,index=self energy in hartree
    <model>/train<k>/networks/ANN-<X>.nnf        layers of member k's network for element X: text behind a bz2 header
    <model>/train<k>/networks/<file>.wparam      float32, row-major (n_out, n_in), no header

The folder, or a .tar.gz of it that is read in memory: nothing is unpacked and nothing in it is executed.
"""

import bz2
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from contract.elements import NUMBERS
from contract.units import HARTREE_EV
from training.importers.errors import UnreadableCheckpoint, UnsupportedExperiment
from training.networks.ani import Ani, AniConfig

MOST_BYTES: Final = 200_000_000
_CELU, _LINEAR = "9", "6"
_WANTED: Final = re.compile(r"(?:^|/)(?:[^/]+\.params|sae_linfit\.dat|train\d+/networks/[^/]+)$")
_MEMBER: Final = re.compile(r"train(\d+)/networks/ANN-[A-Z][a-z]?\.nnf$")


@dataclass(frozen=True, slots=True)
class PublishedAni:
    """A committee: its network, float32 weights; self energies in eV per element."""

    network: Ani
    references: dict[str, float]


def read_neurochem(path: Path) -> PublishedAni:
    """Read a published ANI ensemble.

    Args:
        path: the folder that holds train0, train1, .., or a .tar.gz of it.

    Raises:
        UnreadableCheckpoint: a file is missing, cut short, or not in NeuroChem's format.
        UnsupportedExperiment: an activation or constant that Ani does not have.
    """
    files = _Files(_folder(path) if path.is_dir() else _archive(path), path)
    constants = _Constants(files.only(".params").decode(), path)
    elements = constants.of("Atyp").strip("[]").split(",")
    members = sorted({int(m[1]) for name in files.names() if (m := _MEMBER.search(name))})
    if not members:
        raise UnreadableCheckpoint(f"{path} holds no train0/networks/ANN-*.nnf: give the folder of an ANI ensemble")
    layers = [[_network(files, member, element) for element in elements] for member in members]
    config = _config(constants, elements, layers)
    network = Ani(config)
    _fill(network, layers)
    return PublishedAni(network.eval(), _self_energies(files.only("sae_linfit.dat").decode(), elements))


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of an ensemble by their path, and where they came from."""

    content: Mapping[str, bytes]
    source: Path

    def names(self) -> list[str]:
        return sorted(self.content)

    def only(self, ending: str) -> bytes:
        """The file with this ending that lies highest; the members hold copies of it."""
        found = sorted((name for name in self.content if name.endswith(ending)), key=lambda n: (n.count("/"), n))
        if not found:
            raise UnreadableCheckpoint(f"{self.source} holds no file *{ending}")
        return self.content[found[0]]

    def floats(self, ending: str, count: int) -> NDArray[np.float32]:
        content = self.only(ending)
        if len(content) != 4 * count:
            raise UnreadableCheckpoint(
                f"{self.source}: {ending} holds {len(content):,} bytes; {count:,} float32 are {4 * count:,}"
            )
        return np.frombuffer(content, "<f4")


class _Constants:
    """The descriptor's constants by their key."""

    def __init__(self, text: str, source: Path) -> None:
        self._values, self._source = _assignments(text), source

    def of(self, key: str) -> str:
        if key not in self._values:
            raise UnreadableCheckpoint(f"{self._source}: the descriptor constants (*.params) have no {key}")
        return self._values[key]

    def row(self, key: str) -> list[float]:
        try:
            return [float(value) for value in self.of(key).strip("[]").split(",")]
        except ValueError as error:
            raise UnreadableCheckpoint(f"{self._source}: the descriptor constant {key}: {error}") from None

    def number(self, key: str) -> float:
        row = self.row(key)
        if len(row) != 1:
            raise UnsupportedExperiment(f"{self._source}: {key} has {len(row)} values; one is supported")
        return row[0]


@dataclass(frozen=True, slots=True)
class _Layer:
    """One linear layer: weights (n_in, n_out) and biases."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def _folder(path: Path) -> dict[str, bytes]:
    found = [p for p in sorted(path.rglob("*")) if p.is_file() and _WANTED.search(str(p.relative_to(path)))]
    _refuse_large(path, sum(p.stat().st_size for p in found))
    return {str(p.relative_to(path)): p.read_bytes() for p in found}


def _archive(path: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(path) as archive:
            wanted = [m for m in archive if m.isfile() and _WANTED.search(m.name)]
            _refuse_large(path, sum(m.size for m in wanted))
            return {m.name: _content(archive, m) for m in wanted}
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UnreadableCheckpoint(f"{path} is neither a folder nor a whole .tar.gz: {error}") from None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    return b"" if stream is None else stream.read()


def _refuse_large(path: Path, size: int) -> None:
    if size > MOST_BYTES:
        raise UnreadableCheckpoint(f"{path} holds {size:,} bytes of networks; at most {MOST_BYTES:,} are read")


def _assignments(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _config(constants: _Constants, elements: list[str], layers: list[list[list[_Layer]]]) -> AniConfig:
    config = AniConfig(
        elements=[NUMBERS[symbol] for symbol in elements],
        hidden=[[len(layer.bias) for layer in network[:-1]] for network in layers[0]],
        cutoff_angstrom=constants.number("Rcr"),
        angular_cutoff_angstrom=constants.number("Rca"),
        radial_eta=constants.number("EtaR"),
        radial_shifts=constants.row("ShfR"),
        zeta=round(constants.number("Zeta")),
        angle_shifts=constants.row("ShfZ"),
        angular_eta=constants.number("EtaA"),
        angular_shifts=constants.row("ShfA"),
        members=len(layers),
    )
    widths = {len(network[0].weight) for member in layers for network in member}
    if widths != {config.environment}:
        raise UnreadableCheckpoint(f"networks take {sorted(widths)} inputs; the descriptor has {config.environment}")
    return config


def _network(files: _Files, member: int, element: str) -> list[_Layer]:
    """The layers of one member's network for one element."""
    name = f"train{member}/networks/ANN-{element}.nnf"
    content = files.only(name)
    start = content.find(b"BZh")
    try:
        text = bz2.decompress(content[start:]).decode()
    except (OSError, ValueError) as error:
        raise UnreadableCheckpoint(f"{files.source}: {name} is not a NeuroChem network: {error}") from None
    blocks = [_assignments(block.replace(";", "\n")) for block in re.findall(r"layer\s*\[(.*?)\n\]", text, re.DOTALL)]
    activations = [block["activation"] for block in blocks]
    if activations != [_CELU] * (len(blocks) - 1) + [_LINEAR]:
        raise UnsupportedExperiment(f"{name}: activations {activations}; CELU (9) layers and a linear one (6) are read")
    return [_layer(files, f"train{member}/networks/", block) for block in blocks]


def _layer(files: _Files, folder: str, block: Mapping[str, str]) -> _Layer:
    n_out, n_in = int(block["nodes"]), int(block["blocksize"])
    weights, biases = (_file_name(block[key]) for key in ("weights", "biases"))
    weight = files.floats(folder + weights, n_out * n_in).reshape(n_out, n_in).T
    return _Layer(weight, files.floats(folder + biases, n_out))


def _file_name(entry: str) -> str:
    """The name in FILE:name[count]."""
    found = re.fullmatch(r"FILE:([\w.-]+)\[\d+\]", entry)
    if found is None:
        raise UnreadableCheckpoint(f"'{entry}' does not name a parameter file")
    return found[1]


def _fill(network: Ani, layers: list[list[list[_Layer]]]) -> None:
    """Put the weights of all members into the module."""
    with torch.no_grad():
        for e, module in enumerate(network.networks):
            for k in range(len(layers[0][e])):
                stacked = [member[e][k] for member in layers]
                module.weights[k].copy_(torch.from_numpy(np.stack([layer.weight for layer in stacked])))  # type: ignore[index]
                module.biases[k].copy_(torch.from_numpy(np.stack([layer.bias for layer in stacked])[:, None]))  # type: ignore[index]


def _self_energies(text: str, elements: list[str]) -> dict[str, float]:
    """Self energies, eV per element, from lines such as H,0=-0.599."""
    energies = {key.split(",")[0]: HARTREE_EV * float(value) for key, value in _assignments(text).items()}
    missing = [element for element in elements if element not in energies]
    if missing:
        raise UnreadableCheckpoint(f"sae_linfit.dat has no self energy for {', '.join(missing)}")
    return {element: energies[element] for element in elements}
