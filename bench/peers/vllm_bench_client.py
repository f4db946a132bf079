"""`vllm bench serve` without vLLM's engine. Arguments: those of `vllm bench serve`.

vLLM's own files do the work: its benchmarks and the few utilities they call lie in this environment. What they import
beside that (torch, CUDA, multi-modal input, LoRA) is stood in for by names that can be imported and annotated with,
and that fail when they are used: no figure can come from a stand-in.
"""

import logging
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from transformers import AutoTokenizer, PreTrainedTokenizerBase


class Absent(type):
    """A name of vLLM that is not here: a type to annotate with, that fails when it is called or asked for its truth."""

    def _fail(cls, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"{cls.__module__}.{cls.__name__} is not in this environment")

    __call__ = __bool__ = _fail


class AbsentModule(ModuleType):
    """A module of vLLM that is not here: each of its names is absent."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(name, (), {"__module__": self.__name__})


class AbsentFinder(MetaPathFinder, Loader):
    """Stands in for the modules of vLLM that no other finder finds."""

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname.startswith("vllm.") else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def get_tokenizer(name: str, **_: Any) -> PreTrainedTokenizerBase:
    """What vLLM does for a tokenizer in a local folder, less its own cache of properties."""
    return AutoTokenizer.from_pretrained(name)


# The two that are used, and what of them is.
logger = AbsentModule("vllm.logger")
logger.init_logger = logging.getLogger  # type: ignore[attr-defined]
tokenizers = AbsentModule("vllm.tokenizers")
tokenizers.get_tokenizer = get_tokenizer  # type: ignore[attr-defined]
sys.modules |= {module.__name__: module for module in (logger, tokenizers)}
sys.meta_path.append(AbsentFinder())

from vllm.benchmarks.serve import add_cli_args, main  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402

parser = FlexibleArgumentParser(prog="vllm bench serve")
add_cli_args(parser)
main(parser.parse_args())
