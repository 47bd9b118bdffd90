"""The stores that a run is measured on beside its own, as training goes on; the first and last losses are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pretextlm.training.forgetting import Found, Memory, Remembered
from pretextlm.training.forward import Forward
from pretextlm.training.signals import Interrupted

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pretextlm.model.transformer import Transformer
    from pretextlm.training.distributed import DistributedContext


class LookBack:
    """Measures at most once a step, in fp32 as `pretextlm evaluate` does.

    Args:
        stores: that are watched; without any, nothing is done.
        run: its directory.
        model: that is trained.
        module: the :class:`Task` to call, which may be spread over devices.
    """

    def __init__(
        self,
        stores: Sequence[Remembered],
        run: Path,
        model: Transformer,
        module: nn.Module,
        device: torch.device,
        distributed: DistributedContext,
    ) -> None:
        self.stores, self.model, self.module, self.device, self.distributed = stores, model, module, device, distributed
        self._memory = Memory(run)
        self._found: tuple[int, list[tuple[Remembered, Found]]] | None = None

    def losses(self, step: int, before_batch: Callable[[], None]) -> list[tuple[Remembered, Found]]:
        """Each store with what was found on it at this step. Raises what `before_batch` raises."""
        import torch

        if self._found is None or self._found[0] != step:
            found = []
            for store in self.stores:
                way = store.objective, Forward(self.model, store.objective, self.device, torch.float32)
                measure = partial(lambda way, batch: self.module(batch, way)[1], way)
                found.append((store, store.measure(self.model, measure, self.distributed, before_batch)))
            self._found = step, found
        return self._found[1]

    def begin(self, step: int, before_batch: Callable[[], None]) -> None:
        """Before anything is learnt, put down the losses; where a signal comes first, the next start does."""
        if self.stores and not step:
            with suppress(Interrupted):
                found = self.losses(step, before_batch)
                self.distributed.broadcast_from_main(lambda: self._memory.note("before", step, found))

    def end(self, step: int, before_batch: Callable[[], None], recalled: bool) -> None:
        """Put down the losses of the weights that the run ends with.

        Args:
            recalled: whether these may be those of another step.

        Raises Interrupted where a signal comes first.
        """
        if self.stores:
            self._found = None if recalled else self._found
            found = self.losses(step, before_batch)
            self.distributed.broadcast_from_main(lambda: self._memory.note("after", step, found))
