"""Cost of calibrating an aligner, with CKA beside it, as a ratio to the two models' forwards.

The pairs and texts are those of `layers.py`: models with random weights read random tokens of the
lengths that GSM8K's texts have. Calibration gathers moments of keys and values of every student
layer, of the right and of the wrong sample, and then solves for maps and controls. What is
gathered grows with the texts, what is solved does not: the ratio for 1,000 texts takes the
batches' time scaled to them, and the solution once. Memory is what gathering needs above models
and batch; it must be the same after four times as many batches.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any, NamedTuple

import torch

from kava.align import MapProjectionAligner, StreamingCKA
from kava.fit.aligner import fit_from_statistics
from kava.fit.paired_traces import paired_traces
from kava.fit.statistics import FitStatistics, TracePair, add_pair
from layers import PAIRS, batches, build
from timing import positive, timed

NUM_TEXTS = 1000

FORMS: dict[str, dict[str, Any]] = {
    "full": {"mode": "flat"},
    "rank 1": {"rank": 1},
    "rank 8": {"rank": 8},
    "rank 1 per head": {"rank": 1, "share_dim_proj": False},
}
"""Name → options of the aligner."""


class Gathering(NamedTuple):
    """What was gathered, seconds of each part, and the peak bytes at first and later."""

    seen: dict[str, FitStatistics]
    forward: float
    cka: float
    gather: float
    first_bytes: int
    later_bytes: int


def gather_all(
    teacher_config: Any, student_config: Any, aligner: MapProjectionAligner, num: int, size: int
) -> Gathering:
    """Read batches with both models, and time what is done with them."""
    teacher, student = build(teacher_config), build(student_config)
    layers = student_config.num_hidden_layers, teacher_config.num_hidden_layers
    parts = StreamingCKA(*layers), StreamingCKA(*layers)
    pairs = paired_traces(teacher, student, batches(num, size))
    seen: dict[str, FitStatistics] = {}

    def compare(pair: TracePair) -> None:
        parts[0].update(pair.student.keys, pair.teacher.keys, pair.mask)
        parts[1].update(pair.student.values, pair.teacher.values, pair.mask)

    read: list[TracePair] = []
    forward_seconds = cka_seconds = gather_seconds = 0.0
    peaks = []
    for index in range(num):
        forward, _ = timed(lambda: read.append(next(pairs)))
        pair = read.pop()
        cka, _ = timed(partial(compare, pair))
        gather, peak = timed(partial(add_pair, seen, aligner, pair))
        if index:  # the first also makes room for the sums
            forward_seconds += forward
            cka_seconds += cka
            gather_seconds += gather
        peaks.append(peak)
    return Gathering(seen, forward_seconds, cka_seconds, gather_seconds, peaks[0], max(peaks[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=positive, default=4, help="batches (default 4)")
    parser.add_argument("--batch", type=positive, default=8, help="samples of a batch (default 8)")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads (default 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"batches of {args.batch} texts, {args.threads} thread(s), torch {torch.__version__}\n")
    heads = ("batches", "forward s", "CKA", "collect_statistics", "first MB", "later MB")
    print(f"{'pair':<16}" + "".join(f"{head:>10}" for head in heads))
    for name, configs in PAIRS.items():
        for num in (args.batches, 4 * args.batches):
            aligner = MapProjectionAligner.from_configs(*configs, per_layer=True, mode="flat")
            got = gather_all(*configs, aligner, num, args.batch)
            cells = (
                f"{num}",
                f"{got.forward:.2f}",
                f"{got.cka / got.forward:.2f}",
                f"{got.gather / got.forward:.2f}",
                f"{got.first_bytes / 1e6:.0f}",
                f"{got.later_bytes / 1e6:.0f}",
            )
            print(f"{name:<16}" + "".join(f"{cell:>10}" for cell in cells), flush=True)
        scale = NUM_TEXTS / (args.batch * (num - 1))
        for form, options in FORMS.items():
            aligner = MapProjectionAligner.from_configs(*configs, per_layer=True, **options)
            solve, _ = timed(partial(fit_from_statistics, aligner, got.seen, got.seen))
            ratio = (scale * (got.cka + got.gather) + solve) / (scale * got.forward)
            print(
                f"  {form:<16} solved in {solve:6.1f} s; {NUM_TEXTS:,} texts in {ratio:.2f} of "
                f"the forwards",
                flush=True,
            )
    print(
        "\nseconds: of the CPU on one thread, of the clock on several; without the first batch.\n"
        "CKA, gather: ratio to the two forwards. first MB: peak of the first batch's gathering,\n"
        "which makes the sums; later MB: the highest of any later one, above what was held before."
    )


if __name__ == "__main__":
    main()
