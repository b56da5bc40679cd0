from __future__ import annotations

from pathlib import Path

import pytest

from tests.schemas.spec_files import TEMPLATE, break_text, find_template_problems

LLAMACPP = """\
name: small
version: 1.0.0
spec:
  engine: {type: llamacpp}
  model_source: {type: local, uri: builtin:tiny-chat}
  accelerator: {type: cpu}
  supported_endpoints: [/v1/chat/completions]
"""

# (what is broken, by what, line:column, words of the message and the fix)
MISTAKES = [
    ("name: qwen\nversion", "name: Qwen 2\nversion", "1:7", ["lower-case letters, digits, dots"]),
    ("version: v1.0.0\n", "", "1:1", ["`version` is missing", "Add `version: v1.0.0`"]),
    ("version: v1.0.0", "version: 1.0", "2:10", ["expected text, found the number 1.0", "three numbers"]),
    ("version: v1.0.0", "version: v1", "2:10", ["does not fit", "such as v1.0.0"]),
    ("status: active", "status: activ", "3:9", ["Did you mean active?"]),
    ("status: active", "apiVersion: v1", "3:1", ["unknown key `apiVersion`"]),
    ("status: active", "tp: 2", "3:1", ["`tp` does not belong here", "under `spec.parallelism`"]),
    ("type: vllm", "type: vlm", "6:11", ["expected one of vllm, llamacpp or sglang", "Did you mean vllm?"]),
    ("type: vllm", "type: trtllm", "6:11", ["`type: trtllm` is not supported yet"]),
    ("    type: vllm\n", "", "5:3", ["`type` is missing in `spec.engine`"]),
    ("type: vllm", "type: vllm\n    version: 0.32", "7:14", ["found the number 0.32", '`version: "0.32"`']),
    ("type: vllm", "type: vllm\n    version: newest", "7:14", ["such as 0.32.0"]),
    ("type: vllm", "type: vllm\n    invocation: grpc", "7:17", ["expected http_server"]),
    ("type: vllm", "type: vllm\n    health_endpoint: health", "7:22", ["starts with a slash"]),
    ("vllm/vllm-openai:v0.32.0", "vllm openai", "7:12", ["does not fit", "image@sha256"]),
    ("vllm/vllm-openai:v0.32.0", "vllm/vllm-openai@sha256:abc", "7:12", ["does not fit"]),
    ("[--trust-remote-code]", "--trust-remote-code", "8:17", ["expected a list", "Write a list: `serve_args: ["]),
    ("[--trust-remote-code]", "[--seed, 5]", "8:26", ["expected text, found the number 5", '"5"']),
    ("[--trust-remote-code]", "[--seed 5]", "8:18", ["stand in one entry", "two entries of it: --seed, 5"]),
    ("[--trust-remote-code]", "[--port, '80']", "8:18", ["`--port` is set by Leasehold"]),
    ("[--trust-remote-code]", "[--api-key=secret]", "8:18", ["`--api-key` is set by Leasehold"]),
    ("[--trust-remote-code]", "[-tp, '2']", "8:18", ["`-tp` has a field of its own, parallelism.tp"]),
    ("[--trust-remote-code]", "[--max-num-seqs=8]", "8:18", ["also set by engine_args.max_num_seqs"]),
    ("[--trust-remote-code]", "[--no-enable-prefix-caching]", "8:18", ["also set by engine_args.enable_prefix"]),
    ("[--trust-remote-code]", "[--dtype, half]", "8:18", ["has a field of its own, quantization.weight"]),
    ("[--trust-remote-code]", "[--hf-token, x]", "8:18", ["model_source.auth_secret_ref"]),
    ("ready_timeout_seconds: 1800", 'ready_timeout_seconds: "1800"', "9:28", ["Remove the quotes"]),
    ("ready_timeout_seconds: 1800", "ready_timeout_seconds: 5", "9:28", ["at least 10"]),
    ("ready_timeout_seconds: 1800", "ready_timeout: 1800", "9:5", ["Did you mean `ready_timeout_seconds`?"]),
    ("type: huggingface", "type: hugingface", "11:11", ["Did you mean huggingface?"]),
    ("type: huggingface", "type: s3", "11:11", ["`type: s3` is not supported yet"]),
    ("Qwen/Qwen2.5-7B-Instruct", "Qwen2.5-7B-Instruct", "12:10", ["not a model of the hub", "owner/model"]),
    ("Qwen/Qwen2.5-7B-Instruct", "s3://bucket/model", "12:10", ["s3:// addresses are not supported yet"]),
    ("Qwen/Qwen2.5-7B-Instruct", "", "12:5", ["`uri` has no value"]),
    ("env:HF_TOKEN", "hf_thisIsTheSecretItself", "13:22", ["never the secret itself"]),
    ("env:HF_TOKEN", "my-k8s-secret", "13:22", ["env:NAME, file:PATH or pulumi:KEY"]),
    ("    type: H100\n", "", "14:3", ["`type` is missing in `spec.accelerator`", "Add `type: H100`"]),
    ("count: 1", "count: 2", "18:3", ["is 1, but accelerator.count is 2", "they must be equal"]),
    ("count: 1", "count: one", "16:12", ["expected a whole number"]),
    ("vram_gb: 24", "vram_gb: 24GB", "17:14", ['the text "24GB"']),
    ("vram_gb: 24", "interconnect: nvlnk", "17:19", ["Did you mean nvlink?"]),
    ("vram_gb: 24", "memory: 24", "17:5", ["unknown key `memory`", "vram_gb"]),
    ("{tp: 1}", "{tp: 2}", "18:3", ["tp x pp x dp x ep is 2"]),
    ("{tp: 1}", "{tp: 1, sp: 2}", "18:24", ["`sp` is not supported yet"]),
    ("{tp: 1}", "{tp: 0}", "18:21", ["at least 1"]),
    ("max_num_seqs: 64", "max_num_seqs: many", "20:19", ["whole number of at least 1"]),
    ("max_num_seqs: 64", 'gpu_memory_utilization: "1.5"', "20:29", ["above 0 and at most 1"]),
    ("max_num_seqs: 64", "gpu_memory_utilization: 0", "20:29", ["must be more than 0"]),
    ("max_num_seqs: 64", "max-num-seqs: 64", "20:5", ["lower case with underscores"]),
    ("max_num_seqs: 64", "api_key: x", "20:14", ["`engine_args.api_key` is set by Leasehold"]),
    ("max_num_seqs: 64", "pipeline_parallel_size: 2", "20:29", ["a field of its own, parallelism.pp"]),
    ("max_num_seqs: 64", "num_speculative_tokens: 3", "20:5", ["needs `speculative_model` beside it"]),
    ("max_num_seqs: 64", "max_num_seqs:", "20:5", ["`max_num_seqs` has no value"]),
    ("enable_prefix_caching: true", "enable_prefix_caching: yes", "21:28", ["expected true or false"]),
    ("weight: bf16", "weight: nf4", "23:13", ["expected one of auto, fp16"]),
    ("weight: bf16", "kv_cache: int8", "23:15", ["`kv_cache: int8` is not supported yet"]),
    ("    - /v1/chat/completions\n", "    - /v1/chat\n", "25:7", ["Did you mean /v1/chat/completions?"]),
    ("    - /v1/chat/completions\n", "    []\n", "25:5", ["`supported_endpoints` is empty"]),
    ("    - /v1/chat/completions\n", "    - /v1/completions\n    - /v1/rerank\n", "26:7", ["either writes text or"]),
    ("served_model_name: qwen", "served_model_name: my model", "26:22", ["a name without spaces"]),
    ("served_model_name: qwen", "deployment_mode: shared", "26:20", ["`deployment_mode: shared` is not supported"]),
    ("served_model_name: qwen", "service_id: x", "26:3", ["`service_id` is not supported yet"]),
    ("served_model_name: qwen", "limits: {}", "26:3", ["unknown key `limits`", "Allowed here: accelerator"]),
]
LLAMACPP_MISTAKES = [
    (
        "builtin:tiny-chat",
        "builtin:tiny",
        "5:36",
        ["there is no builtin:tiny", "builtin:tiny-chat and builtin:tiny-embed"],
    ),
    ("builtin:tiny-chat", "model.bin", "5:36", ["needs a .gguf file"]),
    ("type: local, uri: builtin:tiny-chat", "type: huggingface, uri: a/b", "5:42", ["the hub is not supported yet"]),
    ("{type: llamacpp}", "{type: llamacpp, image: a/b:1}", "4:28", ["`image` has no effect with llamacpp"]),
    ("{type: llamacpp}", "{type: vllm}", "5:36", ["vllm cannot load builtin:tiny-chat"]),
    (
        "{type: cpu}",
        "{type: cpu}\n  engine_args: {block_size: 16}",
        "7:17",
        ["`block_size` has no effect with llamacpp"],
    ),
    ("{type: cpu}", "{type: cpu}\n  quantization: {weight: awq}", "7:18", ["`weight` has no effect with llamacpp"]),
    ("[/v1/chat/completions]", "[/v1/rerank]", "7:25", ["/v1/rerank is not supported yet"]),
]
ALL = [(TEMPLATE, *case) for case in MISTAKES] + [(LLAMACPP, *case) for case in LLAMACPP_MISTAKES]


@pytest.mark.parametrize(("text", "old", "new", "place", "words"), ALL, ids=[f"{case[2][:30]!r}" for case in ALL])
def test_a_mistake_in_a_template_is_told_once_at_its_place_with_the_fix(
    tmp_path: Path, text: str, old: str, new: str, place: str, words: list[str]
) -> None:
    problems = find_template_problems(tmp_path, break_text(text, old, new))

    assert len(problems) == 1, "\n".join(map(str, problems))
    told = f"{problems[0].message} {problems[0].fix}"
    assert f"{problems[0].line}:{problems[0].column}" == place
    assert [word for word in words if word not in told] == [], told
    assert problems[0].fix


@pytest.mark.parametrize("text", [TEMPLATE, LLAMACPP])
def test_a_right_template_has_no_problem(tmp_path: Path, text: str) -> None:
    assert find_template_problems(tmp_path, text) == ()


def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    problems = find_template_problems(tmp_path, TEMPLATE.replace("env:HF_TOKEN", "hf_thisIsTheSecretItself"))

    assert "hf_this" not in "".join(map(str, problems))


def test_without_chunked_prefill_a_step_must_hold_the_longest_prompt(tmp_path: Path) -> None:
    small = "max_num_batched_tokens: 1024\n    max_model_len: '8192'\n    enable_chunked_prefill: false"

    problems = find_template_problems(tmp_path, TEMPLATE.replace("max_num_seqs: 64", small))

    assert [(each.line, each.message) for each in problems] == [
        (20, "without chunked prefill a step of 1024 tokens cannot take a prompt of 8192")
    ]


def test_a_local_model_for_vllm_is_a_path_on_the_machine(tmp_path: Path) -> None:
    local = TEMPLATE.replace("type: huggingface", "type: local")

    relative = find_template_problems(tmp_path, local)
    absolute = find_template_problems(tmp_path, local.replace("Qwen/Qwen2.5-7B-Instruct", "/models/qwen"))

    assert [(each.line, each.message) for each in relative] == [
        (12, "this is a path on the machine, so it must be absolute")
    ]
    assert absolute == ()
