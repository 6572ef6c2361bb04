"""The checks of experiments/alignment_checks.py fail where what they look at is broken."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch

from conftest import ROOT
from kava.align import HeadwiseMapProjector, MapProjectionAligner, TimeWarper
from kava.losses import MercatorKVLoss, StructuralKVLoss
from kava.train.objective import Distiller


@pytest.fixture
def integration(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.delenv("MODEL", raising=False)
    path = ROOT / "experiments" / "alignment_checks.py"
    spec = importlib.util.spec_from_file_location("alignment_checks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def scaled(function: Callable[..., Any], change: Callable[[Any], Any]) -> Callable[..., Any]:
    def broken(*args: Any, **kwargs: Any) -> Any:
        return change(function(*args, **kwargs))

    return broken


def bad_rows(self: HeadwiseMapProjector) -> None:
    with torch.no_grad():
        self.head_mixer.weight.fill_(1.0)


def taught(self: Distiller, *args: Any) -> Any:
    forward = FORWARD(self, *args)
    assert self.teacher is not None
    with torch.no_grad():
        next(self.teacher.parameters()).add_(1.0)
    return forward


def untrained(self: Distiller, *args: Any) -> Any:
    forward = FORWARD(self, *args)
    return forward._replace(loss=forward.loss * 0)


def not_finite(self: Distiller, *args: Any) -> Any:
    forward = FORWARD(self, *args)
    return forward._replace(loss=forward.loss * torch.nan)


FORWARD = Distiller.forward
WARP, ALIGN = TimeWarper.forward, MapProjectionAligner.forward
MERCATOR, STRUCTURAL = MercatorKVLoss.__call__, StructuralKVLoss.__call__

BREAKS = {
    "the head mixer's rows": ("check_head_map", HeadwiseMapProjector, "reset_parameters", bad_rows),
    "the ends in time": (
        "check_time_warp", TimeWarper, "forward", scaled(WARP, lambda x: x.flip(3)),
    ),
    "the teacher": ("check_training", Distiller, "forward", taught),
    "the gradient": ("check_training", Distiller, "forward", untrained),
    "the loss": ("check_training", Distiller, "forward", not_finite),
    "the structural loss": (
        "check_losses", StructuralKVLoss, "__call__",
        scaled(STRUCTURAL, lambda out: (out[0] + 1, out[1])),
    ),
    "the Mercator loss": (
        "check_losses", MercatorKVLoss, "__call__",
        scaled(MERCATOR, lambda out: (out[0] + 1, out[1])),
    ),
    "grouped queries": (
        "check_grouped_queries", MapProjectionAligner, "forward",
        scaled(ALIGN, lambda out: out._replace(queries=out.keys)),
    ),
    "the dtype": (
        "check_bfloat16", MapProjectionAligner, "forward",
        scaled(ALIGN, lambda out: out._replace(keys=out.keys.double())),
    ),
    "loading": (
        "check_save_and_load", MapProjectionAligner, "load_state_dict", lambda *args: None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BREAKS)
def test_what_is_broken_fails_its_check(
    what: str,
    integration: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check, owner, name, broken = BREAKS[what]
    monkeypatch.setattr(integration, "CHECKS", (getattr(integration, check),))
    assert integration.check_all() == 0
    monkeypatch.setattr(owner, name, broken)
    assert integration.check_all() == 1
    assert "FAILED" in capsys.readouterr().out


def test_a_stack_in_another_order_and_another_count_fail_their_checks(
    integration: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checks = (integration.check_stack, integration.check_parameters)
    monkeypatch.setattr(integration, "CHECKS", checks)
    stack = integration.stack_past_kv
    monkeypatch.setattr(integration, "stack_past_kv", scaled(stack, lambda x: x.transpose(2, 3)))
    aligner = integration.table_aligner
    monkeypatch.setattr(integration, "table_aligner", lambda share=True: aligner(not share))
    assert integration.check_all() == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.endswith("FAILED")]
    assert len(failed) == 4


def test_an_error_inside_a_check_is_a_failed_check(
    integration: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def check_models(setting: Any) -> Any:
        return integration.check_stack(replace(setting, name="no/such/model"))

    monkeypatch.setattr(integration, "CHECKS", (check_models, integration.check_time_warp))
    assert integration.check_all() == 1
    out = capsys.readouterr().out
    assert "check_models" in out
    assert out.endswith("3 of 4 checks hold\n")
