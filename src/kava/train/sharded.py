"""A student whose weights the processes share out (FSDP 2): whole states, and answers.

Checkpoints are those of a run with whole weights, so that every command reads them and a run can go
on with either. Shapes stand as those of the whole weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import Trainer

from kava.student.whole import OPTIMISER_FILES

Method = TypeVar("Method", bound=Callable[..., Any])


def shards_of(model: nn.Module) -> list[FSDPModule]:
    """The modules whose weights are shared out; empty where every process has all."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Give every process all weights inside the block; every process must enter it.

    Inside, the processes need not take the same passes.
    """
    shards = shards_of(model)
    if not shards:
        yield
        return
    root = shards[0]
    root._get_fsdp_state()._lazy_init()  # before a part of it is called alone
    _share_after_passes(root, False)
    for module in shards:
        module.unshard()
    try:
        yield
    finally:
        for module in shards:
            module.reshard()
        _share_after_passes(root, True)


def _share_after_passes(root: FSDPModule, wanted: bool) -> None:
    """Whether passes leave each process its share of weights and of gradients."""
    root.set_reshard_after_forward(wanted)
    root.set_reshard_after_backward(wanted)
    root.set_requires_gradient_sync(wanted)


def with_all_weights(method: Method) -> Method:
    """Let a method of a trainer have all weights in every process."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with gathered(self.model):
            return method(self, *args, **kwargs)

    return call  # type: ignore[return-value]


def whole(part: Any) -> Any:
    """A tensor with all of its numbers, on the CPU; anything else as it is."""
    if isinstance(part, DTensor):
        return part.full_tensor().detach().cpu()
    return part.detach().cpu() if isinstance(part, Tensor) else part


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model with all of its numbers; every process must call this.

    Parameters of several names are one tensor, as in a model that is not shared out.
    """
    made: dict[int, Tensor] = {}
    own = {name: id(part) for name, part in model.named_parameters(remove_duplicate=False)}
    state = {}
    for name, part in model.state_dict().items():
        key = own.get(name, id(part))
        if key not in made:
            made[key] = whole(part)
        state[name] = made[key]
    return state


class ShardableTrainer(Trainer):
    """transformers' `Trainer`, whose checkpoints are the same with shared-out weights."""

    model: Any

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the student, whose weights all processes put together."""
        if not shards_of(self.model):
            super().save_model(output_dir, _internal_call)
            return
        self._save(output_dir, state_dict=whole_state(self.model))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not shards_of(self.model):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        optimizer = self._optimizer().state_dict()
        state = {
            place: {name: whole(part) for name, part in parts.items()}
            for place, parts in optimizer["state"].items()
        }
        if self.args.should_save:
            schedule: Any = self.lr_scheduler
            parts = ({**optimizer, "state": state}, schedule.state_dict())
            for file, part in zip(OPTIMISER_FILES, parts):
                torch.save(part, os.path.join(output_dir, file))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not shards_of(self.model):
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        schedule: Any = self.lr_scheduler
        found, rates = (
            torch.load(os.path.join(checkpoint, file), map_location="cpu", weights_only=True)
            for file in OPTIMISER_FILES
        )
        optimizer = self._optimizer()
        parameters = [part for group in optimizer.param_groups for part in group["params"]]
        places = [place for group in found["param_groups"] for place in group["params"]]
        for place, parameter in zip(places, parameters):
            found["state"][place] = _shared_out(found["state"].get(place, {}), parameter)
        optimizer.load_state_dict(found)
        schedule.load_state_dict(rates)

    def _sum(self, part: Tensor) -> Tensor:
        summed = self.accelerator.reduce(part.to(self.args.device), reduction="sum")
        assert isinstance(summed, Tensor)
        return summed

    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer: Any = self.optimizer
        inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
        return inner


def _shared_out(state: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
    """What an optimiser keeps of a parameter, shared out as the parameter is."""
    if not isinstance(parameter, DTensor):
        return dict(state)
    return {
        name: distribute_tensor(
            part.to(parameter.device), parameter.device_mesh, parameter.placements
        )
        if isinstance(part, Tensor) and part.shape == parameter.shape and part.ndim
        else part
        for name, part in state.items()
    }
