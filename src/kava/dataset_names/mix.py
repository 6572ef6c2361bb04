"""Names of mixes, with the shares of their sources: `mix:gsm8k=0.4,svamp:data/SVAMP.json=0.6`."""

from __future__ import annotations

import math

MIX_PREFIX = "mix:"
LEAST_SHARE = 1e-9


def is_mix(dataset_name: str) -> bool:
    """Whether a name means a mix.

    Example:
        >>> is_mix("mix:gsm8k=1"), is_mix("gsm8k")
        (True, False)
    """
    return dataset_name.startswith(MIX_PREFIX)


def mix_parts(dataset_name: str) -> dict[str, float]:
    """The sources of a mix and their shares, which sum to 1.

    Args:
        dataset_name: `mix:name=weight,name=weight,…`; weights above 0, in any unit. A name is
            what `load_records` takes, without a comma, or `arc`, which is both parts of ARC.

    Raises:
        ValueError: no sources, a source twice, a weight that is no finite number above 0.

    Example:
        >>> mix_parts("mix:gsm8k=2,svamp:data/SVAMP.json=2")
        {'gsm8k': 0.5, 'svamp:data/SVAMP.json': 0.5}
    """
    weights: dict[str, float] = {}
    for part in dataset_name.removeprefix(MIX_PREFIX).split(","):
        name, equals, text = part.strip().rpartition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not equals or not name:
            raise ValueError(f"{dataset_name}: {part!r} must be a source and its weight, NAME=0.5")
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(
                f"{dataset_name}: the weight {text!r} of {name} must be a finite number above 0"
            )
        if is_mix(name):
            raise ValueError(f"{dataset_name}: a mix cannot hold another mix")
        if name in weights:
            raise ValueError(f"{dataset_name} names {name} twice; give it one weight")
        weights[name] = weight
    total = sum(weights.values())
    if math.isinf(total):
        raise ValueError(f"{dataset_name}: the weights sum to more than a number holds; lower them")
    shares = {name: weight / total for name, weight in weights.items()}
    for name, share in shares.items():
        if share < LEAST_SHARE:
            raise ValueError(
                f"{dataset_name}: the share of {name} is {share:g}, less than one sample in a "
                f"billion; raise its weight"
            )
    return shares
