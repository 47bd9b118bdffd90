"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): momentum, made semi-orthogonal.

A matrix's momentum is replaced by nearly the nearest semi-orthogonal matrix, found by five Newton–Schulz steps. Here
matrices of one shape are stacked and orthogonalised in one batch, which is what makes it cheap at small sizes, and
updates are scaled to the root mean square of AdamW's (Liu et al. 2025, https://arxiv.org/abs/2502.16982), so that one
learning rate serves both. Over several processes each orthogonalises its share of the matrices.

Axis letters: G matrices of one shape, R rows, C columns, W processes, r rows of a matrix that one process holds.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pretextlm.training.sharded_checkpoint import is_sharded_tensor, local_shards

NEWTON_SCHULZ_STEPS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)
ADAM_RMS = 0.2


def orthogonalise(matrices_GRC: Tensor, dtype: torch.dtype) -> Tensor:
    """Nearly the semi-orthogonal factor UVᵀ of each of G matrices (R, C): singular values end near 1.

    The quintic iteration x ← ax + b(xxᵀ)x + c(xxᵀ)²x on the smaller side, in `dtype`.
    """
    x = matrices_GRC.to(dtype)
    tall = x.size(1) > x.size(2)
    if tall:
        x = x.mT
    x = x / (x.float().norm(dim=(1, 2), keepdim=True).to(dtype) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices_GRC.dtype)


class Muon:
    """Momentum, orthogonalised, for equal-shaped groups of matrices.

    Args:
        parameters: matrices, all whole or all in parts; their order names the state.
        dtype: of the Newton–Schulz products: bf16 where products are fast in it, else fp32.
        size: processes that train one model together.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], momentum: float, decay: float, dtype: torch.dtype, size: int = 1
    ) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        self.groups = list(by_shape.values())
        self.buffers = [torch.zeros_like(torch.stack(local_shards(group))) for group in self.groups]
        self.momentum, self.decay, self.dtype, self.size = momentum, decay, dtype, size

    @torch.no_grad()
    def step(self, learning_rate: float, divisor: float = 1.0) -> None:
        """Update the matrices; gradients are divided by `divisor` first."""
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradients = torch.stack(local_shards([p.grad for p in group if p.grad is not None]))
            assert len(gradients) == len(group), "every matrix takes part in the loss"
            if divisor != 1.0:
                gradients.div_(divisor)
            buffer.lerp_(gradients, 1 - self.momentum)
            nesterov = gradients.lerp_(buffer, self.momentum)
            update = self._orthogonal(nesterov, group[0])
            scale = ADAM_RMS * max(group[0].shape) ** 0.5
            weights = local_shards(group)
            if self.decay:
                torch._foreach_mul_(weights, 1 - learning_rate * self.decay)
            torch._foreach_add_(weights, list(update.unbind()), alpha=-learning_rate * scale)

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in itertools.chain.from_iterable(self.groups):
            parameter.grad = None

    def state(self) -> list[Tensor]:
        """The momenta (G, R, C), in parts where the matrices are."""
        return [_stacked_like(buffer, group) for buffer, group in zip(self.buffers, self.groups, strict=True)]

    def _orthogonal(self, stack: Tensor, one: Tensor) -> Tensor:
        work: Callable[[Tensor], Tensor] = lambda whole: orthogonalise(whole, self.dtype)  # noqa: E731
        if is_sharded_tensor(one):
            return in_parts(stack, one.shape[0], one.device_mesh.get_group("shard"), work)  # type: ignore[attr-defined]
        return in_copies(stack, self.size, work) if self.size > 1 else work(stack)


def in_copies(stack_GRC: Tensor, size: int, work: Callable[[Tensor], Tensor]) -> Tensor:
    """`work` on matrices that every process has: each does its share and all exchange what they found."""
    share = -(-len(stack_GRC) // size)
    first = dist.get_rank() * share
    mine = stack_GRC.new_zeros(share, *stack_GRC.shape[1:])
    some = stack_GRC[first : first + share]
    if len(some):
        mine[: len(some)] = work(some)
    everyone = stack_GRC.new_empty(share * size, *stack_GRC.shape[1:])
    dist.all_gather_into_tensor(everyone, mine)
    return everyone[: len(stack_GRC)]


def in_parts(stack_GrC: Tensor, rows: int, group: dist.ProcessGroup, work: Callable[[Tensor], Tensor]) -> Tensor:
    """`work` on matrices of which every process has some rows: each gets its share of them whole, and sends rows back.

    Args:
        rows: R of a whole matrix; process w holds rows w·r … of it, the last ones perhaps fewer than r or none.
    """
    size = group.size()
    share, most = -(-len(stack_GrC) // size), -(-rows // size)
    held, columns = stack_GrC.shape[1:]
    out = stack_GrC.new_zeros(share * size, most, columns)
    out[: len(stack_GrC), :held] = stack_GrC
    parts = torch.empty_like(out)
    dist.all_to_all_single(parts, out, group=group)
    whole = parts.view(size, share, most, columns).transpose(0, 1).reshape(share, size * most, columns)
    whole[:, :rows] = work(whole[:, :rows])
    parts = whole.view(share, size, most, columns).transpose(0, 1).contiguous().view_as(out)
    dist.all_to_all_single(out, parts, group=group)
    return out[: len(stack_GrC), :held]


def _stacked_like(buffer: Tensor, group: list[nn.Parameter]) -> Tensor:
    one: Tensor = group[0]
    if not is_sharded_tensor(one):
        return buffer
    from torch.distributed.tensor import DTensor, Shard

    assert isinstance(one, DTensor), "what has a local part is a DTensor"
    placements = [Shard(1) if isinstance(at, Shard) else at for at in one.placements]
    shape = torch.Size((len(group), *one.shape))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(buffer, one.device_mesh, placements, run_check=False, shape=shape, stride=stride)
