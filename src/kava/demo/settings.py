"""What `kava demo` is asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass

from kava.demo.arms import (
    EVICTION,
    MAIN,
    NUM_ITEMS,
    NUM_LATENTS,
    TEACHER,
    Demo,
    eviction_demo,
    plan_of,
)
from kava.demo.hetero import HETERO, HETERO_TEACHER, JOINT, RANK
from kava.flags import Usage, check_fields, flag
from kava.flags.aliases import ANYWHERE
from kava.models.devices import DEVICE_HELP, check_device_name
from kava.study.plan import Plan

HETERO_DEMOS = {"maps": HETERO, "rank": RANK, "joint": JOINT}
DEMOS = {
    "": MAIN,
    "with --eviction": EVICTION,
    **{f"with --pair hetero --study {name}": one for name, one in HETERO_DEMOS.items()},
}
MOST_ITEMS = 40_000
"""The game has that many held-out problems, and a few hundred for the curves."""


@dataclass(kw_only=True)
class DemoConfig:
    """What `kava demo` is asked for.

    Raises:
        ValueError: a value outside its range, or flags of different studies.
    """

    pair: str = flag(
        "same",
        "same: student and teacher are one model; hetero: the teacher has other layers, heads, "
        "positions and tokens",
        choices=("same", "hetero"),
    )
    study: str | None = flag(
        None,
        "of the pair hetero. maps: which map brings the teacher's cache to the student; rank: how "
        "many terms it needs; joint: whether it can learn beside the student",
        choices=tuple(HETERO_DEMOS),
        unset="maps",
    )
    eviction: bool = flag(
        False, "of the pair same: which of 15 reasoning tokens to match the latents with"
    )
    num_latents: int | None = flag(
        None, "M, with --eviction", choices=(NUM_LATENTS, 5), unset=str(NUM_LATENTS)
    )
    steps: int | None = flag(
        None,
        "optimiser steps of a run",
        least=1,
        most=1_000_000,
        unset=f"{MAIN.num_steps}; {EVICTION.num_steps} with --eviction, {HETERO.num_steps} with "
        f"--pair hetero",
    )
    seeds: int | None = flag(
        None,
        "how many seeds every arm has",
        least=1,
        most=1_000,
        unset="3; without --eviction and --pair hetero 2 for kv and kv_jacobi, else 1",
    )
    arms: list[str] | None = flag(None, "only these arms", metavar="ARM", unset="all")
    jobs: int = flag(
        min(2, os.cpu_count() or 1),
        "runs at a time, of one thread each",
        least=1,
        most=1_024,
    )
    num_items: int = flag(
        NUM_ITEMS, "questions that every student answers in the end", least=1, most=MOST_ITEMS
    )
    output_dir: str | None = flag(
        None, "folder of the demo", unset=f"outputs/{MAIN.name}, or as the study is called"
    )
    overwrite: bool = flag(False, "do all runs again, those too that an earlier call has finished")
    model_name: str = flag(
        TEACHER,
        f"where the students start, and their teacher; with --pair hetero that is {HETERO_TEACHER}",
    )
    device: str = flag(
        "cpu",
        f"{DEVICE_HELP}; models this small are quickest on the CPU",
        check=check_device_name,
    )

    def __post_init__(self) -> None:
        check_fields(self)
        self.plan().choose(self.arms)

    def demo(self) -> Demo:
        """The comparison that the flags ask for.

        Raises:
            ValueError: flags of different studies.
        """
        if self.pair == "hetero":
            for name in ("eviction", "num_latents"):
                if getattr(self, name):
                    raise ValueError(f"--{name} belongs to --pair same; leave one of them out")
            return HETERO_DEMOS[self.study or "maps"]
        if self.study is not None:
            raise ValueError(f"--study {self.study} belongs to --pair hetero; add it")
        if self.num_latents is not None and not self.eviction:
            raise ValueError(f"--num_latents {self.num_latents} belongs to --eviction; add it")
        return eviction_demo(self.num_latents or NUM_LATENTS) if self.eviction else MAIN

    def plan(self) -> Plan:
        """The same with the flags' steps, seeds, questions, model and device.

        Raises:
            ValueError: flags of different studies.
        """
        return plan_of(
            self.demo(),
            num_steps=self.steps,
            num_seeds=self.seeds,
            num_items=self.num_items,
            model_name=self.model_name,
            device=self.device,
        )


USAGE = Usage(
    prog="kava demo",
    kind=DemoConfig,
    summary="Train small students by different signals, with equal budgets, and show which of them "
    "learn to reason in latent tokens.",
    example="kava demo --eviction --arms positions knockout rkv",
    known=ANYWHERE,
    more="arms:\n"
    + "\n".join(
        f"{when}: {', '.join(arm.name for arm in demo.arms)}".removeprefix(": ")
        for when, demo in DEMOS.items()
    ),
)
