"""Studies made up, to see how often a test is right about them.

Shapes: S seeds, N items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """How the runs of an arm come out.

    A run is good or bad, its items are easy or hard: the logit of being right is base + run +
    item + the run's own way with the item, each drawn from a normal distribution. With
    `failing`, a run ends at `chance` in place of that, so often.

    Attributes:
        base: the logit of an average item in an average run; 1.0 is 73 % right.
        run_std: between runs, in logits; at base 1, 0.5 makes accuracies 7 points apart.
        item_std: between items.
        own_std: of a run on an item.
        shared: the share of the runs' variance that belongs to the seed, the same in both arms.
        failing: the share of runs that end at chance.
        chance: the accuracy of such a run, on any item.
        perfect: the others have every item right.
    """

    base: float = 1.0
    run_std: float = 0.5
    item_std: float = 1.5
    own_std: float = 0.5
    shared: float = 0.0
    failing: float = 0.0
    chance: float = 1 / 3
    perfect: bool = False


SCENARIOS = {
    "typical": Scenario(),
    "seeds nearly alike": Scenario(run_std=0.05),
    "seeds far apart": Scenario(run_std=1.5, own_std=1.0),
    "all or chance": Scenario(failing=0.5, perfect=True),
    "one in five fails": Scenario(failing=0.2),
    "seeds shared by half": Scenario(shared=0.5),
}


def simulate_arms(
    rng: np.random.Generator,
    scenario: Scenario,
    *,
    num_seeds: int = 5,
    num_items: int = 500,
    gain: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Two arms [S, N] on the same items, alike but for a gain of the first one.

    Args:
        rng: where chance comes from.
        scenario: how runs come out.
        num_seeds: runs per arm.
        num_items: items.
        gain: of the treatment, in logits.

    Example:
        >>> treatment_SN, baseline_SN = simulate_arms(np.random.default_rng(0), Scenario())
        >>> treatment_SN.shape, treatment_SN.dtype
        ((5, 500), dtype('bool'))
    """
    item_N = rng.normal(0, scenario.item_std, num_items)
    seed_S = rng.normal(0, scenario.run_std, num_seeds) * scenario.shared**0.5
    arms = []
    for base in (scenario.base + gain, scenario.base):
        own_S = rng.normal(0, scenario.run_std, num_seeds) * (1 - scenario.shared) ** 0.5
        logit_SN = base + (seed_S + own_S)[:, None] + item_N
        logit_SN = logit_SN + rng.normal(0, scenario.own_std, logit_SN.shape)
        right_SN = np.ones_like(logit_SN) if scenario.perfect else 1 / (1 + np.exp(-logit_SN))
        failed_S = rng.random(num_seeds) < scenario.failing
        right_SN = np.where(failed_S[:, None], scenario.chance, right_SN)
        arms.append(rng.random(right_SN.shape) < right_SN)
    return arms[0], arms[1]
