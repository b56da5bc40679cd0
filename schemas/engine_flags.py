"""What the words of an engine's command line mean to a template: which option each sets, and which field owns it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

# Options that Leasehold sets itself on every machine.
OURS = frozenset({"host", "port", "api_key", "uds", "ssl_keyfile", "ssl_certfile"})
# Options that have a field of their own, which the plan and the checks read; an argument would contradict it unseen.
FIELD_OF_OPTION = {
    "model": "model_source.uri",
    "served_model_name": "served_model_name",
    "hf_token": "model_source.auth_secret_ref",
    "tensor_parallel_size": "parallelism.tp",
    "pipeline_parallel_size": "parallelism.pp",
    "data_parallel_size": "parallelism.dp",
    "enable_expert_parallel": "parallelism.ep",
}
# Options whose field may be left out; then an argument is fine.
FIELD_IF_SET = {
    "revision": "model_source.revision",
    "tokenizer": "model_source.tokenizer_path",
    "chat_template": "model_source.chat_template_path",
    "quantization": "quantization.weight",
    "dtype": "quantization.weight",
    "kv_cache_dtype": "quantization.kv_cache",
}
_SHORT = {
    "tp": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "dp": "data_parallel_size",
    "q": "quantization",
    "m": "model",
}


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """One option among arguments: its index, how it is written, and its name with underscores."""

    index: int
    word: str
    option: str


def find_flags(arguments: Sequence[object]) -> list[Flag]:
    """The options among the arguments; `--no-x` counts as x."""
    flags = []
    for index, argument in enumerate(arguments):
        if isinstance(argument, str) and argument.startswith("-") and not argument[1:2].isdigit():
            word = argument.split("=", 1)[0].split(" ", 1)[0]
            name = word.lstrip("-").replace("-", "_")
            option = name if word.startswith("--") else _SHORT.get(name, name)
            flags.append(Flag(index=index, word=word, option=option.removeprefix("no_")))
    return flags
