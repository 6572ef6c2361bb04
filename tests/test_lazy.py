"""Names that load on first use, and modules that follow the import of others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLLOW = """
import sys
from kava.lazy import import_after
{before}
import_after("leader.inner", "follower")
print("follower" in sys.modules)
import leader.inner
print("follower" in sys.modules, leader.inner.value, sys.modules["follower"].seen)
import inspect
inner = leader.inner
print(inspect.getsource(inner).strip(), inner.__spec__.origin == inner.__file__)
"""


@pytest.mark.parametrize(("before", "at_once"), [("", False), ("import leader.inner", True)])
def test_a_module_follows_another_whose_import_comes_first_or_later(
    tmp_path: Path, before: str, at_once: bool
) -> None:
    (tmp_path / "leader").mkdir()
    (tmp_path / "leader/__init__.py").write_text("")
    (tmp_path / "leader/inner.py").write_text("value = 7\n")
    (tmp_path / "follower.py").write_text("from leader.inner import value as seen\n")
    done = subprocess.run(
        [sys.executable, "-c", FOLLOW.format(before=before)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.splitlines() == [f"{at_once}", "True 7 7", "value = 7 True"], done.stderr


ENTRIES = (
    *("import transformers", "from transformers import AutoTokenizer, AutoModelForCausalLM"),
    *("from transformers import pipeline", "from transformers import GenerationMixin"),
    *("from transformers import Trainer", "from kava import LatentStudent", "import datasets"),
)


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES)
def test_whatever_is_imported_first_transformers_knows_a_latent_student(entry: str) -> None:
    program = (
        f"import kava\n{entry}\nfrom transformers import AutoConfig, AutoModelForCausalLM\n"
        "config = AutoConfig.for_model('kava_latent', base_config={'model_type': 'gpt2', "
        "'n_embd': 8, 'n_layer': 1, 'n_head': 1, 'vocab_size': 9}, num_latents=1)\n"
        "print(type(AutoModelForCausalLM.from_config(config)).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "LatentStudent", done.stderr


def test_to_know_a_latent_student_costs_no_model() -> None:
    """Of the package, the table of configurations brings in the configuration alone."""
    program = (
        "import sys, kava\nfrom transformers import AutoConfig\n"
        "print(*sorted(name for name in sys.modules if name.startswith('kava.')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == [
        "kava.lazy", "kava.names", "kava.student", "kava.student.config",
        "kava.student.registration",
    ], done.stderr  # fmt: skip
