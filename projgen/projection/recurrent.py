"""LSTM and GRU layers whose weight matrices are stored as products.

A gate pre-activation ``W x + R h + b`` becomes ``W' (Q_in^T x) + R' (Q_out^T h) + b``: ``W'`` has shape
(gates*H, r_in), ``Q_in`` (D, r_in), ``R'`` (gates*H, r_out), ``Q_out`` (H, r_out). The emitted hidden state
keeps its full width H. Either factorisation may be left out (rank None): that matrix is then stored dense.
In the joint form of the LSTM both products share their first factor, z = A (Q_in^T x + Q_out^T h) + b: then
``weight_ih`` and ``weight_hh`` are one parameter. Its bias may be folded into the low-rank vector,
z = A (Q_in^T x + Q_out^T h + b_r): r values instead of 4H.

``forward`` multiplies the factors out and calls the stock fused kernel, so training runs at its speed with
gradients to the factors, and ``torch.export`` yields ``matmul`` + ``lstm.input`` / ``gru.input`` (no
unrolling, no custom operator): a saved ``.pt2`` loads where projgen is not installed. A step-by-step form
applies the two thin factors instead, at ``gates*H*r + r*D`` multiplications.

Biases are stored once per gate. LSTM: ``bias_ih`` (4H) is the one trainable vector (folded: ``projector_bias``,
r values), ``bias_hh`` a buffer of zeros that only fills the kernel's argument. GRU: ``bias_ih`` (3H), and
``bias_hn`` (H) of the candidate gate, which the reset gate multiplies and which therefore can't be merged.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from projgen.errors import InputError
from projgen.pca.discover import cell_suffixes

Rank = int | None
T = TypeVar("T")
Ranks = Rank | Sequence[Rank]
CELL_WEIGHTS = ("weight_ih", "input_projector", "weight_hh", "output_projector")
CELL_BIASES = ("bias_ih", "bias_hn", "projector_bias")


def _spread(ranks: Ranks, cells: int, what: str) -> tuple[Rank, ...]:
    if ranks is None or isinstance(ranks, int):
        return (ranks,) * cells
    spread = tuple(ranks)
    if len(spread) != cells:
        raise InputError(
            f"{len(spread)} values of {what} were given for {cells} cells (layers x directions)",
            f"one rank, or one per cell ({cells})",
            what,
        )
    return spread


class _ProjectedRNN(nn.Module, ABC):
    """What the two projected recurrent layers share: parameters per cell, shapes, initial states."""

    GATES = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        input_rank: Ranks,
        output_rank: Ranks,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        batch_first: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        joint: bool | Sequence[bool] = False,
        fold_bias: bool | Sequence[bool] = False,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.batch_first = batch_first
        self.bias = bias
        self.dropout = dropout
        self._suffixes = cell_suffixes(num_layers, bidirectional)
        cells = len(self._suffixes)
        self.input_rank = _spread(input_rank, cells, "input_rank")
        self.output_rank = _spread(output_rank, cells, "output_rank")
        self.joint = (joint,) * cells if isinstance(joint, bool) else tuple(joint)
        self.fold_bias = (fold_bias,) * cells if isinstance(fold_bias, bool) else tuple(fold_bias)
        directions = 2 if bidirectional else 1
        rows = self.GATES * hidden_size
        factory: dict[str, Any] = {"dtype": dtype, "device": device}
        for index in range(cells):
            width = input_size if index < directions else hidden_size * directions
            for name, columns, rank in (
                ("ih", width, self.input_rank[index]),
                ("hh", hidden_size, self.output_rank[index]),
            ):
                projector = "input_projector" if name == "ih" else "output_projector"
                # a joint rank spans [x; h], and 1 beside them where the bias is folded
                most = width + hidden_size + self.fold_bias[index] if self.joint[index] else columns
                if rank is not None and not 1 <= rank <= most:
                    raise InputError(
                        f"rank {rank} for {projector} of cell {self._suffixes[index]}", f"1 to {most}", "ranks"
                    )
                kept = columns if rank is None else rank
                if name == "hh" and self.joint[index]:
                    self._set("weight_hh", index, self._shared(index))
                else:
                    self._set(f"weight_{name}", index, nn.Parameter(torch.empty(rows, kept, **factory)))
                factor = None if rank is None else nn.Parameter(torch.empty(columns, rank, **factory))
                self._set(projector, index, factor)
            if self.fold_bias[index] and not (bias and self.joint[index]):
                raise InputError(
                    f"a folded bias of cell {self._suffixes[index]}", "in a joint cell with bias", "fold_bias"
                )
            if bias:
                self._add_bias(index, factory)
        self.reset_parameters()

    def _name(self, name: str, index: int) -> str:
        """Parameter name of a cell: plain for the first one, torch's suffix for every further one."""
        return name if index == 0 else f"{name}_{self._suffixes[index]}"

    def _set(self, name: str, index: int, value: nn.Parameter | None) -> None:
        self.register_parameter(self._name(name, index), value)

    def _shared(self, index: int) -> nn.Parameter:
        r_in, r_out = self.input_rank[index], self.output_rank[index]
        if r_in is None or r_in != r_out or self.GATES != 4:
            raise InputError(f"a joint cell of ranks {(r_in, r_out)}", "an LSTM cell with two equal ranks", "joint")
        return self.get_parameter(self._name("weight_ih", index))

    def cell_tensor(self, name: str, index: int = 0) -> Tensor | None:
        """A parameter or buffer of one cell by its plain name, for example ``("weight_hh", 1)``."""
        value = getattr(self, self._name(name, index), None)
        return value if isinstance(value, Tensor) else None

    def cell_dense(self, index: int = 0) -> tuple[Tensor, Tensor]:
        """(W, R) of one cell, multiplied out: shapes (gates*H, D) and (gates*H, H)."""
        return self._product("weight_ih", "input_projector", index), self._product(
            "weight_hh", "output_projector", index
        )

    def reset_parameters(self) -> None:
        """Uniform in +-1/sqrt(H) as torch's RNNs; the factors so that their product has that scale."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for name, parameter in self.named_parameters():
            if "projector" in name and parameter.dim() == 2:
                nn.init.orthogonal_(parameter)
            else:
                nn.init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing to do: the weights are products. Present because models call it on their RNNs."""

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}, input_rank={_short(self.input_rank)}"
        text += f", output_rank={_short(self.output_rank)}"
        for name, usual in (
            ("joint", (False,) * len(self.joint)),
            ("fold_bias", (False,) * len(self.joint)),
            ("num_layers", 1),
            ("bidirectional", False),
            ("batch_first", False),
            ("bias", True),
        ):
            if getattr(self, name) != usual:
                value = getattr(self, name)
                text += f", {name}={_short(value) if isinstance(value, tuple) else value}"
        return text

    def _product(self, weight: str, projector: str, index: int) -> Tensor:
        factor = self.cell_tensor(weight, index)
        q = self.cell_tensor(projector, index)
        assert factor is not None
        return factor if q is None else factor @ q.t()

    @abstractmethod
    def _add_bias(self, index: int, factory: dict[str, Any]) -> None:
        """Registers the biases of one cell: parameters, and buffers of zeros where the stock layer has more."""

    @abstractmethod
    def _biases(self, index: int) -> list[Tensor]:
        """The two biases of one cell as the stock layer takes them, each of shape (gates*H,)."""

    def dense_weights(self) -> list[Tensor]:
        """The parameters that the stock layer of the same function has, in its order."""
        weights: list[Tensor] = []
        for index in range(len(self._suffixes)):
            weights.extend(self.cell_dense(index))
            if self.bias:
                weights.extend(self._biases(index))
        return weights

    def _zeros(self, x: Tensor) -> Tensor:
        batch = x.shape[0] if self.batch_first else x.shape[1]
        return torch.zeros(len(self._suffixes), batch, self.hidden_size, dtype=x.dtype, device=x.device)

    def _check(self, x: Tensor) -> None:
        if x.dim() not in {2, 3} or x.shape[-1] != self.input_size:
            raise InputError(
                f"input of shape {tuple(x.shape)}",
                f"(batch, steps, {self.input_size}) with batch_first, else (steps, batch, {self.input_size})",
                "the model's input",
            )


class ProjectedLSTM(_ProjectedRNN):
    """An nn.LSTM with factored weights; gates in torch's order i, f, g, o.

    Args:
        input_size: D. hidden_size: H.
        input_rank, output_rank: r_in, r_out; None keeps that matrix dense; a sequence gives one per cell.
        joint: both matrices share their first factor (equal ranks), for all cells or per cell.
        fold_bias: a joint cell's bias is that of the low-rank vector, for all cells or per cell.
    Parameters of the first cell: ``weight_ih`` (4H, r_in) or (4H, D), ``input_projector`` (D, r_in) or None,
    ``weight_hh`` (4H, r_out) or (4H, H), ``output_projector`` (H, r_out) or None, ``bias_ih`` (4H) or, folded,
    ``projector_bias`` (r); further cells carry torch's suffix (``weight_ih_l0_reverse``, ``weight_ih_l1``, ...).
    """

    GATES = 4

    def _add_bias(self, index: int, factory: dict[str, Any]) -> None:
        rows, rank = 4 * self.hidden_size, self.input_rank[index]
        name, size = ("projector_bias", rank) if self.fold_bias[index] and rank else ("bias_ih", rows)
        self._set(name, index, nn.Parameter(torch.empty(size, **factory)))
        self.register_buffer(self._name("bias_hh", index), torch.zeros(rows, **factory))

    def _biases(self, index: int) -> list[Tensor]:
        bias, zeros = self.cell_tensor("bias_ih", index), self.cell_tensor("bias_hh", index)
        if self.fold_bias[index]:
            factor, folded = self.cell_tensor("weight_ih", index), self.cell_tensor("projector_bias", index)
            assert factor is not None and folded is not None
            bias = factor @ folded
        assert bias is not None and zeros is not None
        return [bias, zeros]

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As nn.LSTM: (output, (h_n, c_n)). Raises InputError for a wrong shape."""
        self._check(x)
        single = x.dim() == 2
        if single:
            x = x.unsqueeze(0 if self.batch_first else 1)
            state = None if state is None else (state[0].unsqueeze(1), state[1].unsqueeze(1))
        if state is None:
            zeros = self._zeros(x)
            state = (zeros, zeros)
        output, h, c = torch.lstm(
            x, state, self.dense_weights(), self.bias, self.num_layers, self.dropout, self.training,
            self.bidirectional, self.batch_first,
        )  # fmt: skip
        if single:
            return output.squeeze(0 if self.batch_first else 1), (h.squeeze(1), c.squeeze(1))
        return output, (h, c)


class ProjectedGRU(_ProjectedRNN):
    """An nn.GRU with factored weights; gates in torch's order r, z, n, with b_hn inside the reset product.

    Parameters as ProjectedLSTM with 3H rows; ``bias_ih`` (3H) and ``bias_hn`` (H).
    """

    GATES = 3

    def _add_bias(self, index: int, factory: dict[str, Any]) -> None:
        hidden = self.hidden_size
        self._set("bias_ih", index, nn.Parameter(torch.empty(3 * hidden, **factory)))
        self._set("bias_hn", index, nn.Parameter(torch.empty(hidden, **factory)))
        zeros = torch.zeros(2 * hidden, **factory)
        self.register_buffer(self._name("bias_hrz", index), zeros)

    def _biases(self, index: int) -> list[Tensor]:
        names = ("bias_ih", "bias_hrz", "bias_hn")
        ih, hrz, hn = (self.cell_tensor(name, index) for name in names)
        assert ih is not None and hrz is not None and hn is not None
        return [ih, torch.cat((hrz, hn))]

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As nn.GRU: (output, h_n). Raises InputError for a wrong shape."""
        self._check(x)
        single = x.dim() == 2
        if single:
            x = x.unsqueeze(0 if self.batch_first else 1)
            state = None if state is None else state.unsqueeze(1)
        output, h = torch.gru(
            x, self._zeros(x) if state is None else state, self.dense_weights(), self.bias, self.num_layers,
            self.dropout, self.training, self.bidirectional, self.batch_first,
        )  # fmt: skip
        if single:
            return output.squeeze(0 if self.batch_first else 1), h.squeeze(1)
        return output, h


def _short(values: tuple[T, ...]) -> T | tuple[T, ...]:
    return values[0] if len(values) == 1 else values
