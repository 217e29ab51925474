"""Numbers of a network that are not trained, held in the dtype of its weights."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import nn


class ExactConstants(nn.Module):
    """A module whose constants are exact in every dtype: a cast alone would carry float32's rounding into float64.

    They are buffers, not Python numbers, because an exporter writes Python numbers as float32 into a float64 graph.
    """

    def __init__(self) -> None:
        super().__init__()
        self._exact: dict[str, torch.Tensor] = {}

    def register_constant(self, name: str, value: float | Sequence[float]) -> None:
        """Hold a number, or a row of them, as a buffer that no state dict contains."""
        self._exact[name] = torch.tensor(value, dtype=torch.float64)
        self.register_buffer(name, torch.tensor(value), persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """What every cast and move of a module goes through."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in self._exact.items():
            self.get_buffer(name).copy_(value)
        return self
