"""How often two identical arms are called different, and how often a gain is found.

    python benchmarks/false_positives.py

Arms are simulated (`kava.statistics.simulate`), with five seeds each, and compared by
`compare_arms`. Between identical arms every p below 0.05 is a false positive, and a sound test has
5 % of them: fewer waste power, more mislead. The last rows hold arms of one mean accuracy whose
runs spread unlike: a good one and one that fails at times are no identical arms, but a test of the
mean should not tell them apart either. Below stands the power at a true gain.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np

from kava.statistics import ArmComparison, compare_arms
from kava.statistics.simulate import SCENARIOS, simulate_arms
from timing import positive

ALPHA = 0.05
# what a comparison says of each test
P_OF: dict[str, Callable[[ArmComparison], float]] = {
    "crossed": lambda found: found.p,
    "seeds": lambda found: found.paired_t_p,
    "wilcoxon": lambda found: found.wilcoxon_p,
    "items": lambda found: found.item_p,
}
Arms = tuple[np.ndarray, np.ndarray]


def unlike_spread(rng: np.random.Generator, num_seeds: int, num_items: int) -> Arms:
    """Two arms of mean accuracy 0.7: one steady, one whose runs lie at 0.5 or 0.9."""
    steady_SN = rng.random((num_seeds, num_items)) < 0.7
    run_S = rng.choice([0.5, 0.9], num_seeds)
    return steady_SN, rng.random((num_seeds, num_items)) < run_S[:, None]


def rates(arms: Iterator[Arms]) -> list[float]:
    """The share of comparisons with p below alpha, for each test."""
    found = [compare_arms(*pair, num_resamples=0) for pair in arms]
    return [float(np.mean([p_of(one) < ALPHA for one in found])) for p_of in P_OF.values()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=positive, default=1000, help="per row (default 1000)")
    parser.add_argument("--seeds", type=int, default=5, help="runs per arm (default 5)")
    parser.add_argument("--items", type=positive, default=500, help="items (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default 0)")
    options = parser.parse_args()
    size = {"num_seeds": options.seeds, "num_items": options.items}

    def row(name: str, simulate: Callable[[np.random.Generator], Arms]) -> None:
        rng = np.random.default_rng(options.seed)
        shares = rates(simulate(rng) for _ in range(options.studies))
        print(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)

    def header(title: str) -> None:
        print(f"\n| {title} | {' | '.join(P_OF)} |\n|---|{'---|' * len(P_OF)}")

    start = time.perf_counter()
    print(f"{options.studies} studies per row, {options.seeds} seeds, {options.items} items")
    header("p < 0.05 between identical arms")
    for name, scenario in SCENARIOS.items():
        row(name, lambda rng, scenario=scenario: simulate_arms(rng, scenario, **size))  # type: ignore[misc]
    row("one mean, unlike spread", lambda rng: unlike_spread(rng, **size))
    header("p < 0.05 at a gain of one logit")
    for name in ("typical", "seeds far apart", "seeds shared by half"):
        scenario = SCENARIOS[name]
        row(name, lambda rng, scenario=scenario: simulate_arms(rng, scenario, gain=1.0, **size))  # type: ignore[misc]
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
