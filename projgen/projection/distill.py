"""Fine-tuning without labels: a compressed student learns its teacher's outputs and hidden states."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from projgen.data import as_batches, input_layout, place, run_model
from projgen.errors import InputError
from projgen.pca.discover import as_device, owned_copy
from projgen.pca.outputs import OutputScale
from projgen.progress import Reporter
from projgen.projection.factors import KEPT_UNITS
from projgen.projection.layers import ProjectedLayer
from projgen.projection.recurrent import ProjectedGRU, ProjectedLSTM
from projgen.projection.samples import Pool, split
from projgen.projection.shared import SharedProjector, tied_pairs

_EVALUATIONS = 12
_PATIENCE = 4
_WATCHED_SEED = 1
_RATE, _RECURRENT_RATE = 3e-3, 1.6e-2
_RECURRENT = (nn.LSTM, nn.GRU, ProjectedLSTM, ProjectedGRU)


def distill(
    student: nn.Module,
    teacher: nn.Module,
    data: Any,
    *,
    epochs: float | None = None,
    steps: int = 800,
    batch_size: int = 56,
    learning_rate: float | None = None,
    hidden_weight: float = 0.1,
    augment: bool = True,
    seed: int = 0,
    device: torch.device | str | None = None,
    verbosity: str = "summary",
) -> nn.Module:
    """Train a copy of the student to reproduce the teacher; no labels are used.

    The loss is the squared difference of the normalised outputs over their variance (scores are centred over the
    classes, anything else is standardised), plus ``hidden_weight`` times that of the hidden states of recurrent
    layers of the same name, of the units that were kept. Adam with a one-cycle rate (10% warm-up) and gradient
    norms clipped at 1.

    Args:
        student: the compressed model, packed or unpacked (not modified). teacher: the original.
        data: any form ``projgen.data`` accepts, as a stream of samples: they are batched anew (sequences with
            others of about their length, cut to the shortest) and held in memory.
        epochs: passes over the data; None means ``steps`` optimiser steps.
        learning_rate: the highest of the schedule; None: 0.016 if the teacher has recurrent layers, else 0.003.
        augment: train also on noisy and mixed inputs, images also shifted; the teacher sees the same.
        seed: of batches and augmentation; the same seed gives the same result on the same machine.
        device: where to train; the student's own by default.
    Returns:
        The trained copy: the best of the states seen, judged on samples and, with ``augment``, on augmented copies of
        them. It stops early when, in the second half, four of the twelve evaluations one after the other were no
        better than those before.
    """
    reporter = Reporter(verbosity)
    _check(epochs, steps, batch_size, learning_rate)
    layout = input_layout(teacher)
    target = as_device(device, student)
    batches = as_batches(data, teacher)
    recurrent = any(isinstance(module, nn.LSTM | nn.GRU) for module in teacher.modules())
    rate = learning_rate or (_RECURRENT_RATE if recurrent else _RATE)
    samples = [split(place(batch, teacher, target), layout) for batch in batches]
    pool = Pool([sample for group in samples for sample in group], layout, batch_size)
    pupil, expert = copy.deepcopy(student).to(target), owned_copy(teacher).to(target).eval().requires_grad_(False)
    modes = {name: module.training for name, module in pupil.named_modules()}
    _training_mode(pupil)
    balance_factors(pupil)
    wanted = [p for p in pupil.parameters() if p.requires_grad]
    if not wanted:
        raise InputError("the student has no parameter that trains", "parameters with requires_grad", "student")
    total = steps if epochs is None else max(1, math.ceil(epochs * len(pool.samples) / batch_size))
    objective = _Objective(pupil, expert, hidden_weight, pool, augment)
    start = best = objective.measure()
    lowest, stale = math.inf, 0  # of the second half: what a high rate spoils before, the falling rate makes good
    state = copy.deepcopy(pupil.state_dict())
    optimiser = torch.optim.Adam(wanted, lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=max(total, 2), pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    every = max(1, total // _EVALUATIONS)
    stream = pool.stream(generator)
    for step in reporter.track(range(1, total + 1), "distilling", total):
        batch = next(stream)
        inputs = pool.augmented(batch, generator) if augment else batch
        loss = objective.loss(inputs)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(wanted, 1.0)
        optimiser.step()
        schedule.step()
        if step % every and step != total:
            continue
        now = objective.measure()
        reporter.iteration(f"step {step}: loss {now:.3e}")
        if now < best * 0.999:
            best, state = now, copy.deepcopy(pupil.state_dict())
        if step <= total // 2:
            continue
        lowest, stale = (now, 0) if now < lowest * 0.999 else (lowest, stale + 1)
        if stale >= _PATIENCE:
            break
    objective.close()
    pupil.load_state_dict(state)
    for name, module in pupil.named_modules():
        module.training = modes[name]
    reporter.summary(f"Distilled over {len(pool.samples)} samples: loss {start:.3e} -> {best:.3e}")
    return pupil


def balance_factors(model: nn.Module) -> None:
    """Give the two factors of each product the same singular values (the product does not change).

    A layer that shares an RNN's projector follows that projector's change; where another reader has none that could,
    the cell is left as it is.
    """
    tied = list(tied_pairs(model))
    followed = [pair.projector for pair in tied]
    fixed = {id(m.weight) for m in model.modules() if isinstance(m, SharedProjector) and m not in followed}
    with torch.no_grad():
        before = [pair.projector.weight.clone() for pair in tied]
        for module in model.modules():
            if isinstance(module, ProjectedLSTM | ProjectedGRU):
                for index in range(len(module.input_rank)):
                    if id(module.cell_tensor("output_projector", index)) not in fixed:
                        _balance_cell(module, index)
            elif isinstance(module, ProjectedLayer) and module.original_class.endswith("Linear"):
                projector_of = module.network.get_submodule("input_projector")
                if isinstance(projector_of, SharedProjector):
                    continue
                projector = projector_of.get_parameter("weight")
                core = module.network.get_submodule("core").get_parameter("weight")
                left, right = _balanced(core, projector)
                core.copy_(left)
                projector.copy_(right)
        for pair, old in zip(tied, before, strict=True):
            change = torch.linalg.lstsq(pair.projector.weight.double(), old.double()).solution  # old = new @ change
            pair.core.weight.copy_(pair.core.weight.double() @ change.T)


def _balance_cell(module: ProjectedLSTM | ProjectedGRU, index: int) -> None:
    q, u = module.cell_tensor("input_projector", index), module.cell_tensor("output_projector", index)
    a, b = module.cell_tensor("weight_ih", index), module.cell_tensor("weight_hh", index)
    assert a is not None and b is not None
    if module.joint[index]:  # one factor stands before both projectors
        assert q is not None and u is not None
        bias = module.cell_tensor("projector_bias", index)
        parts = [q, u] if bias is None else [q, u, bias[None]]
        left, right = _balanced(a, torch.cat(parts).T)
        a.copy_(left)
        for part, new in zip(parts, torch.split(right.T, [len(part) for part in parts]), strict=True):
            part.copy_(new)
        return
    for factor, projector in ((a, q), (b, u)):
        if projector is not None:
            left, right = _balanced(factor, projector.T)
            factor.copy_(left)
            projector.copy_(right.T)


def _balanced(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """U S^1/2 and S^1/2 V^T of A B, from thin QR factorisations."""
    qa, ra = torch.linalg.qr(a.double())
    qb, rb = torch.linalg.qr(b.double().T)
    u, s, vt = torch.linalg.svd(ra @ rb.T)
    root = s.sqrt()
    return (qa @ (u * root)).to(a.dtype), ((root[:, None] * vt) @ qb.T).to(b.dtype)


class _Objective:
    """The loss of a batch, with hooks on the recurrent layers of both models."""

    def __init__(self, student: nn.Module, teacher: nn.Module, hidden_weight: float, pool: Pool, augment: bool) -> None:
        self._student = student
        self._teacher = teacher
        self._weight = hidden_weight
        self._hidden: dict[str, dict[str, Tensor]] = {"student": {}, "teacher": {}}
        self._handles: list[Any] = []
        self._units: dict[str, list[int] | None] = {}
        self._watched = plain = pool.watched()
        names = [name for name, m in teacher.named_modules() if isinstance(m, nn.LSTM | nn.GRU)]
        for name in names if hidden_weight > 0 else []:
            ours, theirs = _module(student, name), teacher.get_submodule(name)
            units = getattr(ours, KEPT_UNITS, None)
            if ours is not None and (units is not None or ours.hidden_size == theirs.hidden_size):
                self._units[name] = units if units is None else list(units)
                for side, module in (("student", ours), ("teacher", theirs)):
                    self._handles.append(module.register_forward_hook(partial(self._keep, side, name)))
        with torch.no_grad():
            results = [run_model(teacher, batch, index) for index, batch in enumerate(plain)]
            self._scale = OutputScale()
            self._scale.calibrate(results, plain)
            normalised = [self._scale.normalise(result) for result in results]
        self._spread = [_variance(parts) for parts in zip(*normalised, strict=True)]
        if augment:  # closed forms fit the very samples they were made from: others must count too
            generator = torch.Generator().manual_seed(_WATCHED_SEED)
            self._watched = [*plain, *(pool.augmented(batch, generator) for batch in plain)]

    def _keep(self, side: str, name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        self._hidden[side][name] = output[0]

    def loss(self, batch: tuple[Tensor, ...]) -> Tensor:
        """Outputs and hidden states of a batch, each relative to its variance."""
        with torch.no_grad():
            theirs = self._scale.normalise(self._teacher(*batch))
        ours = self._scale.normalise(run_model(self._student, batch, 0))
        total = torch.zeros((), device=theirs[0].device, dtype=theirs[0].dtype)
        for s, t, spread in zip(ours, theirs, self._spread, strict=True):
            total = total + (s - t).square().mean() / spread
        for name, h in self._hidden["student"].items():
            t, units = self._hidden["teacher"][name], self._units[name]
            t = t if units is None else t[..., units]
            total = total + self._weight * (h - t).square().mean() / t.var().clamp_min(1e-8)
        return total

    def measure(self) -> float:
        """Mean loss over the watched samples, and over their augmented copies if such are trained on."""
        with torch.no_grad():
            weights = [batch[0].shape[0] for batch in self._watched]
            losses = [float(self.loss(batch)) for batch in self._watched]
        mean = sum(w * v for w, v in zip(weights, losses, strict=True)) / sum(weights)
        return mean if math.isfinite(mean) else math.inf

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _module(student: nn.Module, name: str) -> Any:
    try:
        module = student.get_submodule(name)
    except AttributeError:
        return None
    inner = module.network if isinstance(module, ProjectedLayer) else module
    return inner if isinstance(inner, _RECURRENT) else None


def _variance(parts: tuple[Tensor, ...]) -> float:
    rows = torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
    return max(float(rows.var(0, correction=0).mean()), 1e-12)


def _training_mode(model: nn.Module) -> None:
    """Frozen statistics and no dropout, but recurrent layers in the mode cuDNN differentiates."""
    model.eval()
    for module in model.modules():
        if isinstance(module, _RECURRENT) and module.dropout == 0.0:
            module.training = True


def _check(epochs: float | None, steps: int, batch_size: int, learning_rate: float | None) -> None:
    for name, value in (
        ("epochs", epochs),
        ("steps", steps),
        ("batch_size", batch_size),
        ("learning_rate", learning_rate),
    ):
        if value is not None and not value > 0:
            raise InputError(f"{name}={value!r}", "a number above 0", name)
