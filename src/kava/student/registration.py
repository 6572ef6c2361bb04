"""Make `AutoConfig` and `AutoModelForCausalLM` of transformers know a latent student.

The configuration is registered here, which loads little; the model's class registers itself when
it is imported, at the latest when the first configuration is made. This module is imported as soon
as transformers' own table of configurations is (`kava.__init__`), often in the middle of another
import of transformers: it may need nothing of it but that.
"""

from __future__ import annotations

from importlib import import_module

from transformers import AutoConfig

from kava.student.config import LatentStudentConfig, first_use

AutoConfig.register(LatentStudentConfig.model_type, LatentStudentConfig, exist_ok=True)
first_use.append(lambda: import_module("kava.student.latent"))
