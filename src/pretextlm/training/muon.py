"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): SGD with orthogonalized Nesterov momentum.

The momentum M = UΣVᵀ of a matrix is replaced by approximately UVᵀ, computed by five Newton–Schulz iterations, so that
every direction of the update has the same size. Matrices of the same shape are stacked and orthogonalized in one batch,
because products of small matrices one by one do not use the processor well. Updates are scaled to the root mean square
of AdamW's (Liu et al. 2025, https://arxiv.org/abs/2502.16982), so that one learning rate serves both optimizers. With
several processes, each one orthogonalizes its share of the matrices.

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
"""Coefficients (a, b, c) of the iteration, chosen by Jordan et al. to raise small singular values fast (a is large)."""
ADAM_RMS = 0.2
"""Typical root mean square of an update of AdamW, before the learning rate (Liu et al. 2025)."""


def orthogonalize(matrices_GRC: Tensor, dtype: torch.dtype) -> Tensor:
    """Approximates the semi-orthogonal factor UVᵀ of matrices UΣVᵀ by Newton–Schulz iterations.

    Args:
        matrices_GRC: (G, R, C).
        dtype: of the products. For fp16, whose range gradients leave, the matrices are first divided by their norm.

    Returns:
        (G, R, C) in the dtype of the input; the singular values lie around 1, between about 0.7 and 1.2.
    """
    x = (unit_norm(matrices_GRC) if dtype == torch.float16 else matrices_GRC).to(dtype)
    # (Xᵀ)'s factor is the transpose of X's: iterating on the wide form makes the Gram matrix X Xᵀ the smaller one.
    tall = x.size(1) > x.size(2)
    if tall:
        x = x.mT
    # The iteration needs singular values in [0, 1]; the Frobenius norm is at least the largest one.
    x = unit_norm(x)
    a, b, c = QUINTIC
    # X ← aX + (bA + cA²)X with A = XXᵀ = UΣ²Uᵀ maps each singular value s to as + bs³ + cs⁵ and leaves U and V as they
    # are. For example 0.01 → 0.03 → 0.12 → 0.40 → 1.09 → 0.70; larger values end in the same range (0.5 → 1.19 → 0.90 →
    # 0.82 → 0.94 → 0.77).
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices_GRC.dtype)


def unit_norm(x_GRC: Tensor) -> Tensor:
    """Divides each matrix by its Frobenius norm."""
    norm_G11: Tensor = x_GRC.float().norm(dim=(1, 2), keepdim=True).to(x_GRC.dtype) + 1e-7
    return x_GRC / norm_G11


class Muon:
    """The optimizer of matrices, in groups of the same shape.

    Args:
        parameters: matrices, either all sharded or none; their order determines the names of the state.
        momentum: decay of the running mean of the gradients.
        decay: decoupled weight decay, as in AdamW.
        dtype: of the Newton–Schulz products: bf16 where its products are fast, else fp32.
        size: number of processes.
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
        """Updates the matrices.

        Args:
            learning_rate: of this step.
            divisor: gradients are divided by it first (gradient clipping).
        """
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradients = torch.stack(local_shards([p.grad for p in group if p.grad is not None]))
            assert len(gradients) == len(group), "every matrix takes part in the loss"
            if divisor != 1.0:
                gradients.div_(divisor)
            # Momentum M ← μM + (1 - μ)G, then Nesterov's look-ahead μM + (1 - μ)G with the new M.
            buffer.lerp_(gradients, 1 - self.momentum)
            nesterov = gradients.lerp_(buffer, self.momentum)
            update = self._orthogonalize(nesterov, group[0])
            # UVᵀ of an (R, C) matrix has min(R, C) singular values 1, so the root mean square of its elements is
            # √(min(R, C) / RC) = 1 / √max(R, C): times √max(R, C) · 0.2 it is AdamW's.
            scale = ADAM_RMS * max(group[0].shape) ** 0.5
            weights = local_shards(group)
            if self.decay:
                torch._foreach_mul_(weights, 1 - learning_rate * self.decay)
            torch._foreach_add_(weights, list(update.unbind()), alpha=-learning_rate * scale)

    def zero_grad(self) -> None:
        """Removes the gradients."""
        for parameter in itertools.chain.from_iterable(self.groups):
            parameter.grad = None

    def state(self) -> list[Tensor]:
        """Returns the momentum buffers (G, R, C), sharded like the matrices."""
        return [_stacked_like(buffer, group) for buffer, group in zip(self.buffers, self.groups, strict=True)]

    def _orthogonalize(self, stack: Tensor, one: Tensor) -> Tensor:
        work: Callable[[Tensor], Tensor] = lambda stack: orthogonalize(stack, self.dtype)  # noqa: E731
        if is_sharded_tensor(one):
            return transform_sharded(stack, one.shape[0], one.device_mesh.get_group("shard"), work)  # type: ignore[attr-defined]
        return transform_replicated(stack, self.size, work) if self.size > 1 else work(stack)


def transform_replicated(stack_GRC: Tensor, size: int, work: Callable[[Tensor], Tensor]) -> Tensor:
    """Transforms replicated matrices: each process transforms its share of them, then all exchange the results.

    Args:
        stack_GRC: (G, R, C), the same on all processes.
        size: number of processes W.
        work: transforms (n, R, C) matrices one by one.

    Returns:
        (G, R, C) transformed, the same on all processes.
    """
    # 5 matrices on 2 processes: share 3; process 0 takes matrices 0 … 2, process 1 takes 3 … 4 and zeros as padding,
    # since all_gather_into_tensor needs equal sizes.
    share = -(-len(stack_GRC) // size)
    first = dist.get_rank() * share
    own = stack_GRC.new_zeros(share, *stack_GRC.shape[1:])
    some = stack_GRC[first : first + share]
    if len(some):
        own[: len(some)] = work(some)
    gathered = stack_GRC.new_empty(share * size, *stack_GRC.shape[1:])
    dist.all_gather_into_tensor(gathered, own)
    return gathered[: len(stack_GRC)]


def transform_sharded(
    stack_GrC: Tensor, rows: int, group: dist.ProcessGroup, work: Callable[[Tensor], Tensor]
) -> Tensor:
    """Transforms sharded matrices: each process collects its share of complete matrices, then sends their rows back.

    Args:
        stack_GrC: (G, r, C) rows that this process holds.
        rows: R of a complete matrix. Process w holds the rows from w·⌈R/W⌉ on; the last processes hold fewer, or none.
        group: the processes that hold the rows.
        work: transforms (n, R, C) matrices one by one.

    Returns:
        (G, r, C) rows of the transformed matrices that this process holds.
    """
    # 3 matrices of 5 rows on 2 processes: share 2, most 3. Block i of `outgoing` goes to process i: matrices 2i and
    # 2i+1 (the fourth is padding), of each of them the rows held here, padded to 3.
    size = group.size()
    share, most = -(-len(stack_GrC) // size), -(-rows // size)
    held, columns = stack_GrC.shape[1:]
    outgoing = stack_GrC.new_zeros(share * size, most, columns)
    outgoing[: len(stack_GrC), :held] = stack_GrC
    # (W · share, most, C), sender first: rows of this process's share of matrices from every process. With the sender's
    # axis moved beside the rows, each matrix is complete; the rows beyond R are padding.
    incoming = torch.empty_like(outgoing)
    dist.all_to_all_single(incoming, outgoing, group=group)
    complete = incoming.view(size, share, most, columns).transpose(0, 1).reshape(share, size * most, columns)
    complete[:, :rows] = work(complete[:, :rows])
    # The same exchange in the other direction.
    incoming = complete.view(share, size, most, columns).transpose(0, 1).contiguous().view_as(outgoing)
    dist.all_to_all_single(outgoing, incoming, group=group)
    return outgoing[: len(stack_GrC), :held]


def _stacked_like(buffer: Tensor, group: list[nn.Parameter]) -> Tensor:
    """Returns a momentum buffer as a DTensor that is sharded like its matrices, or itself if they are not."""
    one: Tensor = group[0]
    if not is_sharded_tensor(one):
        return buffer
    from torch.distributed.tensor import DTensor, Shard

    assert isinstance(one, DTensor), "sharded parameters are DTensors"
    # Rows are axis 0 of a matrix and axis 1 of the stack of matrices.
    placements = [Shard(1) if isinstance(at, Shard) else at for at in one.placements]
    shape = torch.Size((len(group), *one.shape))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(buffer, one.device_mesh, placements, run_check=False, shape=shape, stride=stride)
