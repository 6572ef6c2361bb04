"""CKA of all pairs of layers over a data set of any size, in one pass, batch by batch.

The debiased estimate needs only sums over positions of products of
features (`kava.align.layers.cka` has the formula), so no N × N matrix is made and nothing is
sampled.

Shapes: B batch, L_s/L_t layers of student and teacher (S and T in suffixes), H heads, T positions,
D head dim, C_s/C_t = H·D features of a layer, N valid positions of a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kava.align.layers.cka import MIN_ROWS_DEBIASED, check_rows, normalised, unbiased_hsic

SIDES = ("student", "teacher")


class StreamingCKA:
    """Debiased linear CKA of every student layer with every teacher layer.

    The matrix is that of `linear_cka(…, debiased=True)` over all valid positions at once, to
    rounding: batch size, order and padding change nothing. The usual alternative, the unbiased
    HSIC averaged over minibatches (Nguyen et al. 2021, arXiv 2010.15327), assumes positions that
    are drawn independently, but those of a batch come from few texts.

    Products are taken in the input's dtype (at least float32), of rows shifted by the mean of the
    first batch so that large means cost no digits; sums are float64. They take 8·L_s·C_s·L_t·C_t
    bytes, whatever the number of samples.

    Args:
        num_student_layers: L_s.
        num_teacher_layers: L_t.

    Raises:
        ValueError: a number of layers below 1.

    Example:
        >>> cka = StreamingCKA(2, 3)
        >>> for _ in range(4):
        ...     cka.update(torch.randn(2, 2, 4, 50, 8), torch.randn(2, 3, 1, 50, 16))
        >>> cka.num_rows, cka.matrix().shape
        (400, torch.Size([2, 3]))
    """

    def __init__(self, num_student_layers: int, num_teacher_layers: int) -> None:
        for name, number in zip(SIDES, (num_student_layers, num_teacher_layers)):
            if number < 1:
                raise ValueError(f"num_{name}_layers={number} must be at least 1")
        self.num_layers = (num_student_layers, num_teacher_layers)
        self.num_rows = 0
        self._sums: tuple[_Side, _Side, _Pairs] | None = None

    @torch.no_grad()
    def update(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch of keys (or values) of both models at the same positions.

        Args:
            student: [B, L_s, H_s, T, D_s].
            teacher: [B, L_t, H_t, T, D_t].
            mask: [B, T] bool, False at padding, which is left out and may hold anything; None:
                all are valid.

        Raises:
            ValueError: shapes that do not fit each other, the layers or earlier batches.
        """
        B, T = self._check(student, teacher, mask)
        valid_BT = torch.ones(B, T, dtype=torch.bool) if mask is None else mask.bool()
        # float64 sums, which Apple's GPUs do not have
        device = torch.device("cpu") if student.device.type == "mps" else student.device
        student_NSC, teacher_NTC = (_rows(part, valid_BT, device) for part in (student, teacher))
        if not len(student_NSC):
            return
        if self._sums is None:
            sides = _Side(student_NSC), _Side(teacher_NTC)
            self._sums = (*sides, _Pairs(*sides))
        ours, theirs, pairs = self._sums
        pairs.add(ours.add(student_NSC), theirs.add(teacher_NTC))
        self.num_rows += len(student_NSC)

    def _check(self, student: Tensor, teacher: Tensor, mask: Tensor | None) -> tuple[int, int]:
        earlier = (None, None) if self._sums is None else self._sums[:2]
        for name, part, layers, side in zip(SIDES, (student, teacher), self.num_layers, earlier):
            if part.ndim != 5 or part.shape[1] != layers:
                raise ValueError(
                    f"{name} has shape {list(part.shape)}, expected [B, {layers}, H, T, D]"
                )
            width = part.shape[2] * part.shape[4]
            if side is not None and side.width != width:
                raise ValueError(
                    f"{name} has {width} features in a layer, earlier batches had {side.width}"
                )
        B, T = student.shape[0], student.shape[3]
        if (teacher.shape[0], teacher.shape[3]) != (B, T):
            raise ValueError(
                f"student {list(student.shape)} and teacher {list(teacher.shape)} differ in "
                f"samples or positions; bring the teacher to the student's positions first"
            )
        if mask is not None and mask.shape != (B, T):
            raise ValueError(f"mask must be [{B}, {T}], got {list(mask.shape)}")
        return B, T

    def matrix(self) -> Tensor:
        """[L_s, L_t] float64 on the CPU; 0 for a layer that never varies.

        Raises:
            ValueError: fewer than 4 valid positions, or a layer with NaN or infinity.
        """
        check_rows(self.num_rows, MIN_ROWS_DEBIASED)
        assert self._sums is not None
        *sides, pairs = self._sums
        own = [side.hsic(self.num_rows) for side in sides]
        for name, value_L in zip(SIDES, own):
            wrong = (~value_L.isfinite()).nonzero()
            if len(wrong):
                raise ValueError(f"layer {int(wrong[0])} of the {name} holds NaN or infinity")
        return normalised(pairs.hsic(self.num_rows), own[0][:, None], own[1]).cpu()


def _rows(part: Tensor, valid_BT: Tensor, device: torch.device) -> Tensor:
    """[B, L, H, T, D] at valid positions, as [N, L, C]."""
    rows = part.permute(0, 3, 1, 2, 4)[valid_BT.to(part.device)].flatten(2).to(device)
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


class _Side:
    """Sums over one model's rows x of each layer, and over their squared norms a."""

    def __init__(self, rows_NLC: Tensor) -> None:
        L, C = rows_NLC.shape[1:]
        self.shift = rows_NLC.mean(0)
        self.width = C
        new = rows_NLC.new_zeros
        self.x = new(L, C, dtype=torch.float64)
        self.a = new(L, dtype=torch.float64)
        self.aa = new(L, dtype=torch.float64)
        self.xa = new(L, C, dtype=torch.float64)
        self.product = new(L, C, C, dtype=torch.float64)

    def add(self, rows_NLC: Tensor) -> tuple[Tensor, Tensor]:
        """Add rows; returns them shifted, [N, L, C], and their squared norms, [N, L]."""
        x_NLC = rows_NLC - self.shift.to(rows_NLC.dtype)
        a_NL = x_NLC.square().sum(-1)
        self.x += x_NLC.sum(0, dtype=torch.float64)
        self.a += a_NL.sum(0, dtype=torch.float64)
        self.aa += a_NL.double().square().sum(0)
        self.xa += torch.einsum("nlc,nl->lc", x_NLC, a_NL)
        self.product += x_NLC.permute(1, 2, 0) @ x_NLC.transpose(0, 1)
        return x_NLC, a_NL

    def hsic(self, num_rows: int) -> Tensor:
        """[L], with itself."""
        sums = (self.x, self.x), (self.a, self.a), self.aa, (self.xa, self.xa)
        return _hsic_of_sums(num_rows, self.product, *sums)


class _Pairs:
    """Sums over pairs of rows x, y of the same position, for every pair of layers."""

    def __init__(self, student: _Side, teacher: _Side) -> None:
        self.sides = student, teacher
        (S, C_s), (T, C_t) = student.x.shape, teacher.x.shape
        new = student.x.new_zeros
        self.ab = new(S, T)
        self.xb = new(S, C_s, T)
        self.ya = new(S, T, C_t)
        self.product = new(S, C_s, T, C_t)

    def add(self, student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> None:
        """Add shifted rows and their squared norms, of both sides."""
        dtype = torch.promote_types(student[0].dtype, teacher[0].dtype)
        x_NSC, a_NS, y_NTC, b_NT = (part.to(dtype) for part in (*student, *teacher))
        self.ab += a_NS.double().mT @ b_NT.double()
        self.xb += torch.einsum("nsc,nt->sct", x_NSC, b_NT)
        self.ya += torch.einsum("ntc,ns->stc", y_NTC, a_NS)
        y = y_NTC.flatten(1)
        # a student layer at a time, since the product is as large as what it is added to
        for x_NC, total in zip(x_NSC.unbind(1), self.product.flatten(2)):
            total += x_NC.mT @ y

    def hsic(self, num_rows: int) -> Tensor:
        """[L_s, L_t]."""
        student, teacher = self.sides
        rows = [
            _hsic_of_sums(
                num_rows,
                self.product[layer].movedim(1, 0),
                (student.x[layer], teacher.x),
                (student.a[layer], teacher.a),
                self.ab[layer],
                (self.xb[layer].mT, self.ya[layer]),
            )
            for layer in range(len(self.product))
        ]
        return torch.stack(rows)


def _hsic_of_sums(
    num_rows: int,
    product: Tensor,
    sums: tuple[Tensor, Tensor],
    squares: tuple[Tensor, Tensor],
    sum_ab: Tensor,
    weighted: tuple[Tensor, Tensor],
) -> Tensor:
    """Unbiased HSIC from sums over rows that are not centred, by centring the sums.

    Args:
        num_rows: n.
        product: Σ x yᵀ, [..., C_x, C_y].
        sums: Σ x [..., C_x] and Σ y [..., C_y].
        squares: Σ a and Σ b, [...], of a = |x|² and b = |y|².
        sum_ab: Σ ab, [...].
        weighted: Σ x b [..., C_x] and Σ y a [..., C_y].
    """
    n = num_rows
    mean_x, mean_y = sums[0] / n, sums[1] / n
    square_x, square_y = mean_x.square().sum(-1), mean_y.square().sum(-1)
    centred = product - n * mean_x[..., :, None] * mean_y[..., None, :]
    # Σ |x − mean_x|² |y − mean_y|², multiplied out
    across = (mean_x[..., None, :] @ product @ mean_y[..., :, None])[..., 0, 0]
    along = (mean_x * weighted[0]).sum(-1) + (mean_y * weighted[1]).sum(-1)
    centred_ab = (
        sum_ab
        - 2 * along
        + 4 * across
        + square_y * squares[0]
        + square_x * squares[1]
        - 3 * n * square_x * square_y
    )
    return unbiased_hsic(
        n,
        centred.square().sum((-2, -1)),
        squares[0] - n * square_x,
        squares[1] - n * square_y,
        centred_ab,
    )
