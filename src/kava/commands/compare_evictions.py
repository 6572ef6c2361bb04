"""What each eviction keeps of a teacher's reasoning, as a table.

python experiments/compare_evictions.py --dataset_name "kava/shell-game?form=verbose"
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from kava import names
from kava.commands.reading import ReadingConfig
from kava.data_settings import Source
from kava.files.outputs import check_output
from kava.flags import Usage, again, flag
from kava.flags.aliases import READING
from kava.flags.known import Same
from kava.models.quiet import quiet_libraries

if TYPE_CHECKING:
    import numpy as np

    from kava.importance.kept import KeptSummary


def check_target_lens(text: str) -> None:
    """Hold `--target_len` to its form.

    Raises:
        ValueError: something else than numbers from 1 to `MOST_LATENTS` with commas.
    """
    for part in text.split(","):
        number = int(part) if part.strip().isdecimal() and len(part.strip()) < 10 else 0
        if not 1 <= number <= names.MOST_LATENTS:
            raise ValueError(
                f"--target_len {text!r} must be numbers from 1 to {names.MOST_LATENTS:,}, with "
                f"commas between them, as in 3,6"
            )


USUAL_SAMPLES = 1000


@dataclass(kw_only=True)
class ComparisonConfig(ReadingConfig):
    """Which teacher reads what, and how much is kept.

    Raises:
        ValueError: a value outside its range; the message names the flag.
    """

    dataset_name: str = again(Source, "dataset_name", "kava/shell-game?form=verbose")
    teacher_name: str = flag(
        "kava/shell-teacher",
        "a hub id, a local folder, or a built-in kava/ name",
        group="models",
    )
    num_samples: int | None = flag(
        None,
        "samples, taken at random",
        least=1,
        group="data",
        unset=f"{USUAL_SAMPLES}, or all where there are fewer",
    )
    target_len: str = flag(
        "3,6",
        "M, the number of kept positions: one or more, with commas",
        check=check_target_lens,
        group="compression",
    )
    reach: str = flag("later_steps", "which later tokens count in knockout", choices=names.REACHES)
    output: str | None = flag(None, "write the figures to this JSON file too", group="output")
    no_progress: bool = flag(False, "no progress bars")

    @property
    def target_lens(self) -> list[int]:
        """The values of M."""
        return [int(part) for part in self.target_len.split(",")]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The figures of all arms.

    Attributes:
        num_samples: samples that were read.
        reasoning: what all reasoning tokens are, as if all were kept.
        kept: M → arm → what it keeps.
        agreement: method → Spearman's rank correlation of its scores with knockout's.
    """

    num_samples: int
    reasoning: KeptSummary
    kept: dict[int, dict[str, KeptSummary]]
    agreement: dict[str, float]

    def __str__(self) -> str:
        lines = []
        for target_len, arms in self.kept.items():
            rows = {"(all of the reasoning)": self.reasoning, **arms}
            lines += [*_table(target_len, rows), ""]
        for method, rho in self.agreement.items():
            lines.append(f"{method} ranks tokens like knockout: Spearman's rho {rho:.2f}")
        return "\n".join(lines)


def compare(config: ComparisonConfig) -> Comparison:
    """Read the samples, score them, and look at what each eviction keeps.

    Raises:
        ValueError: data or a model that cannot be loaded, or samples that do not fit.
        OSError: files that cannot be read.
    """
    import numpy as np

    from kava.commands.reading import load_reader, read_texts
    from kava.importance.kept import ARMS, kept_shares, rank_agreement, summarize
    from kava.importance.roles import oracle_ranks, token_roles
    from kava.importance.score import SCORERS, score_samples
    from kava.models.load import load_model_config
    from kava.models.queries import check_records

    name = config.teacher_name
    check_records(load_model_config(name), name, "an eviction of this comparison")
    texts = read_texts(config, name, name, config.num_samples, "num_samples", USUAL_SAMPLES)
    print(f"data: {config.dataset_name}: {texts.report}")
    model = load_reader(config, name).requires_grad_(False)
    scores: dict[str, list[np.ndarray]] = {
        method: score_samples(
            model,
            texts.samples,
            texts.records,
            texts.template,
            method=method,
            reach=config.reach,  # type: ignore[arg-type]
            progress=not config.no_progress,
        )
        for method in SCORERS
    }
    shares = kept_shares(model, texts.samples, config.target_lens, scores=scores)
    by_id = {record.id: record for record in texts.records}
    roles = [token_roles(by_id[s.id], s, texts.tokenizers[0]) for s in texts.samples]
    oracles = [oracle_ranks(by_id[s.id], s) for s in texts.samples]
    return Comparison(
        num_samples=len(texts.samples),
        reasoning=summarize([np.ones(len(row)) for row in roles], roles, oracles),
        kept={
            target_len: {
                arm.name: summarize(
                    shares[arm.name, target_len], roles, oracles, shares["knockout", target_len]
                )
                for arm in ARMS
            }
            for target_len in config.target_lens
        },
        agreement={
            method: rank_agreement(scores["knockout"], rows)
            for method, rows in scores.items()
            if method != "knockout"
        },
    )


def _table(target_len: int, rows: dict[str, KeptSummary]) -> Sequence[str]:
    """A Markdown table, one row per arm."""
    roles = list(next(iter(rows.values())).roles)
    with_oracle = next(iter(rows.values())).oracle is not None
    head = [f"M = {target_len}", *(["oracle found"] if with_oracle else []), "as knockout"]
    head += ["place", *(f"`{role}`" for role in roles)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, kept in rows.items():
        cells = [name]
        cells += [f"{100 * (kept.oracle or 0):.0f} %"] if with_oracle else []
        cells += ["" if kept.overlap is None else f"{100 * kept.overlap:.0f} %"]
        cells += [f"{kept.place:.2f}", *(f"{100 * kept.roles[role]:.0f} %" for role in roles)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


USAGE = Usage(
    prog="compare_evictions.py",
    kind=ComparisonConfig,
    summary="Show what each eviction keeps of a teacher's reasoning.",
    example='python experiments/compare_evictions.py --dataset_name "kava/shell-game?form=verbose"',
    known={**READING, "model_name": Same("teacher_name")},
    common=(
        *("teacher_name", "dataset_name", "split", "num_samples", "max_length", "overflow"),
        *("target_len", "reach", "batch_size", "dtype", "seed", "device", "output", "no_progress"),
    ),
)


def main(argv: list[str]) -> int:
    """Parse flags, compare, and print one table per M."""
    config = USAGE.parse(argv)
    if config.output is not None:
        check_output(config.output)
    quiet_libraries()

    from kava.files.locks import lock_file
    from kava.files.write import write_whole

    with lock_file(config.output, "compare_evictions"):
        comparison = compare(config)
        if config.output is not None:
            write_whole(config.output, json.dumps(asdict(comparison), indent=2) + "\n")
    print(f"teacher: {config.teacher_name}\n")
    print(comparison)
    if config.output is not None:
        print(f"written to {config.output}")
    return 0
