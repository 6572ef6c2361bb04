"""The manifest of a store: what it holds, of whom, and in which files.

    manifest.json              settings, data, shards with their sha256, what the form lost
    teacher.safetensors        rotation and form of attention, of a store of whole texts
    full/shard-00000.safetensors      whole texts
    targets/shard-00000.safetensors   kept positions
    manifest-00001.json        while several processes extract: the shards of the second

It is written anew after every shard, by one rename; a shard that it does not list counts for
nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kava.files.write import write_whole
from kava.format import counted
from kava.inputs import Malformed, read_json

FORMAT = 1
"""Version of the layout; another one is refused."""
MANIFEST_FILE = "manifest.json"
FULL, TARGETS = "full", "targets"
TIERS = (FULL, TARGETS)
_AGAIN = "extract the store again with --overwrite"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A file of a store.

    Args:
        tier: its folder, `FULL` or `TARGETS`.
        file: its name there.
        sha256: of its content.
        num_bytes: of its content.
        num_samples: in it.
    """

    tier: str
    file: str
    sha256: str
    num_bytes: int
    num_samples: int

    def path(self, store: Path) -> Path:
        """Where it is."""
        return store / self.tier / self.file


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a store holds.

    Args:
        settings: all that its numbers depend on, in sections: "teacher", "tokenizer", "template",
            "geometry", "targets" (None of a store without), "include", "form".
        data: what the samples were read from; they are found by what they say.
        shards: its files.
        errors: `FormError.as_dict` of each tier.
        version: of KaVa, which wrote it.
    """

    settings: Mapping[str, Any]
    data: Mapping[str, Any] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()
    errors: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""

    @property
    def store_id(self) -> str:
        """What every shard of the store names: the hash of the settings."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def of_tier(self, tier: str) -> tuple[Shard, ...]:
        """The shards of a tier."""
        return tuple(shard for shard in self.shards if shard.tier == tier)

    def next_number(self, tier: str) -> int:
        """The number behind those of a tier's shards."""
        return max((int(shard.file[6:11]) for shard in self.of_tier(tier)), default=-1) + 1

    def with_shard(self, shard: Shard, errors: Mapping[str, Any]) -> Manifest:
        """The manifest with one more shard, and what the form has lost so far."""
        return replace(
            self,
            shards=(*self.shards, shard),
            errors={**self.errors, shard.tier: errors},
        )

    def save(self, store: str | Path, file: str = MANIFEST_FILE) -> None:
        """Write it into a store's folder, whole or not at all.

        Args:
            store: the folder.
            file: its name there; another one is that of a process (`kava.store.parts`).
        """
        content = {"format": FORMAT, "id": self.store_id, **asdict(self)}
        write_whole(Path(store) / file, json.dumps(content, indent=1) + "\n")


def is_store(folder: str | Path) -> bool:
    """Whether a folder holds a store's manifest."""
    return (Path(folder) / MANIFEST_FILE).is_file()


def read_manifest(
    store: str | Path, flag: str = "--store", *, file: str = MANIFEST_FILE
) -> Manifest:
    """Read the manifest of a store.

    Args:
        store: its folder.
        flag: where it was named, for messages.
        file: its name there.

    Raises:
        OSError: it holds none.
        ValueError: it is damaged, or of another version.

    Example:
        >>> read_manifest("outputs/store").settings["teacher"]["name"]
        'kava/shell-teacher'
    """
    path = Path(store) / file
    if not path.is_file():
        inside = sorted(one.parent.name for one in Path(store).glob(f"*/{MANIFEST_FILE}"))
        hint = (
            f"; in it are the stores {', '.join(inside)}: name those"
            if inside
            else ": name the folder that kava extract wrote"
        )
        raise OSError(f"{flag} {store} holds no {MANIFEST_FILE}, so it is no store of kava{hint}")
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise TypeError("it holds no JSON object")
        if content["format"] != FORMAT:
            raise ValueError(
                f"{path} is of format {content['format']}, this version reads {FORMAT}: {_AGAIN}"
            )
        found = Manifest(
            settings=content["settings"],
            data=content["data"],
            shards=tuple(_shard(about) for about in content["shards"]),
            errors=content["errors"],
            version=content["version"],
        )
        for name in ("settings", "data", "errors"):
            if not isinstance(content[name], dict):
                raise TypeError(f"its {name} are no JSON object")
        store_id = content["id"]
    except (Malformed, KeyError, TypeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is damaged ({reason}): {_AGAIN}") from error
    if found.store_id != store_id:
        raise ValueError(f"{path} was changed: its settings are not those of its id; {_AGAIN}")
    return found


def _shard(about: Any) -> Shard:
    if not isinstance(about, dict):
        raise TypeError("a shard is no JSON object")
    shard = Shard(**about)
    if not all(type(size) is int for size in (shard.num_bytes, shard.num_samples)):
        raise TypeError(f"the sizes of {shard.file} are no numbers")
    return shard


def check_equal(
    store: str | Path,
    theirs: Mapping[str, Any],
    ours: Mapping[str, Any],
    mend: str,
    *,
    whose: str = "this run needs",
) -> None:
    """Refuse a store whose settings differ, by the name of the first that does.

    Args:
        store: its folder.
        theirs: its settings, by name.
        ours: those that are needed; names that only the store has are not compared.
        mend: what helps.
        whose: who needs them.

    Raises:
        ValueError: names the setting, both values and the mend.
    """
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise ValueError(
                f"--store {store} holds {name.replace('_', ' ')} {_short(theirs.get(name))}, "
                f"{whose} {_short(value)}: {mend}"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}…"


def describe(store: str | Path, manifest: Manifest) -> list[str]:
    """Lines that say what a store holds."""
    teacher, targets = manifest.settings["teacher"], manifest.settings["targets"]
    lines = [
        f"store:    {store}, written by KaVa {manifest.version}",
        f"teacher:  {teacher['name']}, {teacher['dtype']}, weights {teacher['weights'][:12]}",
    ]
    if targets is not None:
        said = ", ".join(f"{name} {value}" for name, value in targets.items())
        lines.append(f"targets:  {said}")
    lines.append(f"also:     {', '.join(manifest.settings['include']) or 'nothing'}")
    for tier in TIERS:
        shards = manifest.of_tier(tier)
        if not shards:
            continue
        samples, size = (sum(getattr(s, n) for s in shards) for n in ("num_samples", "num_bytes"))
        lines.append(
            f"{tier + ':':<9} {samples:,} samples in {counted(len(shards), 'shard')}, "
            f"{size:,} bytes, {size // max(samples, 1):,} a sample; {error_line(manifest, tier)}"
        )
    return lines


def error_line(manifest: Manifest, tier: str) -> str:
    """What the form of a tier lost, in words."""
    form, errors = manifest.settings["form"], manifest.errors.get(tier, {})
    if form == "float32" or not errors:
        return f"{form}, nothing lost" if form == "float32" else form
    parts = []
    for name, total in errors["squares"].items():
        share = (errors["errors"][name] / total) ** 0.5 if total else 0.0
        parts.append(f"{name} {share:.2e}")
    worst = max(errors["worst"].values(), default=0.0)
    return (
        f"{form}, relative error {', '.join(parts)}, at most {worst:.2e} of a vector's largest "
        f"number"
    )
