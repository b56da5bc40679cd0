from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from schemas.errors import SpecError
from schemas.template import Template, load_template, resolve_template
from schemas.template_check import BUILTIN_MODELS, LLAMACPP_OPTIONS
from stacks.launch.llamacpp import list_llamacpp_refusals
from tests.schemas.spec_files import PROJECT, TEMPLATE, load_text

# The template that AIBrix documents for its cloud resource manager, with its number written as text.
AIBRIX = {
    "name": "qwen2-5-7b-cloud",
    "version": "v1.0.0",
    "status": "active",
    "spec": {
        "engine": {
            "type": "vllm",
            "version": "latest",
            "image": "vllm/vllm-openai:latest",
            "invocation": "http_server",
            "serve_args": ["--trust-remote-code"],
            "health_endpoint": "/health",
            "ready_timeout_seconds": 1800,
            "metrics_endpoint": "/metrics",
        },
        "model_source": {"type": "huggingface", "uri": "Qwen/Qwen2.5-7B-Instruct"},
        "accelerator": {"type": "H100", "count": 1, "vram_gb": 80, "interconnect": "pcie"},
        "parallelism": {"tp": 1, "pp": 1, "dp": 1, "ep": 1},
        "engine_args": {"gpu_memory_utilization": "0.90"},
        "quantization": {"weight": "fp16", "kv_cache": "auto"},
        "supported_endpoints": ["/v1/chat/completions"],
        "deployment_mode": "dedicated",
    },
}


def write_versions(folder: Path, *versions: str) -> None:
    for version in versions:
        name, _, status = version.partition("=")
        text = TEMPLATE.replace("v1.0.0", name).replace("status: active", f"status: {status or 'active'}")
        (folder / f"qwen-{name}.yaml").write_text(text)


def test_the_template_of_the_aibrix_page_works_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "page.json"
    path.write_text(json.dumps(AIBRIX, indent=2))

    template = load_template(path)

    assert template.reference == "qwen2-5-7b-cloud@v1.0.0"
    assert template.model == "Qwen/Qwen2.5-7B-Instruct"
    assert template.spec.engine_args == {"gpu_memory_utilization": 0.9}
    assert template.spec.accelerator.interconnect == "pcie"
    assert template.spec.engine.ready_timeout_s == 1800
    assert template.spec.quantization.weight == "fp16"


def test_numbers_and_booleans_written_as_text_are_typed(tmp_path: Path) -> None:
    arguments = (
        'max_model_len: "8192"\n    gpu_memory_utilization: 1\n    swap_space: "0"\n'
        '    enable_chunked_prefill: "false"\n    seed: 7\n    allowed_origins: [a, 2]\n    hf_overrides: {a: {b: 1}}'
    )

    template = load_text(tmp_path, TEMPLATE.replace("max_num_seqs: 64", arguments))

    given = template.spec.engine_args
    assert given == {
        "max_model_len": 8192,
        "gpu_memory_utilization": 1.0,
        "swap_space": 0,
        "enable_chunked_prefill": False,
        "seed": 7,
        "allowed_origins": ("a", "2"),
        "hf_overrides": '{"a": {"b": 1}}',
        "enable_prefix_caching": True,
    }
    assert isinstance(given["gpu_memory_utilization"], float)


def test_a_template_survives_json_unchanged(tmp_path: Path) -> None:
    template = load_text(tmp_path, TEMPLATE.replace("max_num_seqs: 64", "x: [a, b]\n    y: 1.0\n    z: true\n    w: t"))

    assert msgspec.json.decode(msgspec.json.encode(template), type=Template) == template


def test_what_is_left_out_has_its_documented_default(tmp_path: Path) -> None:
    text = (
        "name: a\nversion: 1.0.0\nspec:\n  engine: {type: vllm, health_endpoint: ''}\n"
        "  model_source: {type: huggingface, uri: a/b}\n"
        "  accelerator: {type: CPU}\n  supported_endpoints: [/v1/completions]\n"
    )

    template = load_text(tmp_path, text)

    assert (template.status, template.spec.engine.health_endpoint) == ("active", "/health")
    assert (template.spec.accelerator.type, template.spec.accelerator.count) == ("cpu", 1)
    assert template.spec.parallelism.world_size == 1


@pytest.mark.parametrize(
    ("uri", "served", "model"),
    [("a/b.gguf", "", "b"), ("builtin:tiny-chat", "", "tiny-chat"), ("a/b.gguf", "chat", "chat")],
)
def test_the_model_that_requests_ask_for_is_the_served_name(tmp_path: Path, uri: str, served: str, model: str) -> None:
    name = f"  served_model_name: {served}\n" if served else ""
    text = (
        f"name: a\nversion: 1.0.0\nspec:\n  engine: {{type: llamacpp}}\n  model_source: {{type: local, uri: '{uri}'}}\n"
        f"  accelerator: {{type: cpu}}\n  supported_endpoints: [/v1/completions]\n{name}"
    )

    assert load_text(tmp_path, text).model == model


@pytest.mark.parametrize(("change", "most"), [({}, 0), ({"max_model_len": "4096"}, 4095), ({"max_model_len": 1}, 0)])
def test_the_longest_answer_leaves_room_for_a_prompt(tmp_path: Path, change: dict[str, str], most: int) -> None:
    text = TEMPLATE.replace("max_num_seqs: 64", f"max_num_seqs: 64\n    {json.dumps(change)[1:-1]}")

    assert load_text(tmp_path, text).most_tokens == most


def test_llamacpp_cuts_an_answer_short_and_so_may_be_asked_for_all_of_it() -> None:
    assert load_template(PROJECT / "jobs" / "templates" / "tiny-chat.yaml").most_tokens == 2048


def test_a_gguf_file_is_found_from_the_templates_folder(tmp_path: Path) -> None:
    text = (
        "name: a\nversion: 1.0.0\nspec:\n  engine: {type: llamacpp}\n  model_source: {type: local, uri: models/x.gguf}\n"
        "  accelerator: {type: cpu}\n  supported_endpoints: [/v1/completions]\n"
    )

    assert load_text(tmp_path, text).spec.model_source.uri == str((tmp_path / "models" / "x.gguf").resolve())


def test_an_exact_reference_gets_exactly_that_version(tmp_path: Path) -> None:
    write_versions(tmp_path, "v1.0.0", "v1.2.0", "v2.0.0")

    assert resolve_template("qwen@v1.2.0", tmp_path).version == "v1.2.0"


def test_a_bare_name_gets_the_highest_active_version(tmp_path: Path) -> None:
    write_versions(tmp_path, "v1.9.0", "v1.10.0", "v1.10.0-rc.1", "v2.0.0=deprecated", "v3.0.0=draft")

    assert resolve_template("qwen", tmp_path).version == "v1.10.0"


def test_drafts_count_only_when_they_are_asked_for(tmp_path: Path) -> None:
    write_versions(tmp_path, "v1.0.0", "v3.0.0=draft")

    assert resolve_template("qwen", tmp_path, allow_draft=True).version == "v3.0.0"
    with pytest.raises(SpecError, match="is a draft"):
        resolve_template("qwen@v3.0.0", tmp_path)


def test_a_name_without_active_version_is_refused_with_what_there_is(tmp_path: Path) -> None:
    write_versions(tmp_path, "v1.0.0=deprecated", "v2.0.0=draft")

    with pytest.raises(SpecError) as raised:
        resolve_template("qwen", tmp_path)

    problem = raised.value.problems[0]
    assert problem.message == "template `qwen` has no active version"
    assert "qwen@v1.0.0 (deprecated) and qwen@v2.0.0 (draft)" in problem.fix


def test_two_files_with_one_version_are_refused(tmp_path: Path) -> None:
    write_versions(tmp_path, "v1.0.0")
    (tmp_path / "copy.yml").write_text(TEMPLATE)

    with pytest.raises(SpecError) as raised:
        resolve_template("qwen@v1.0.0", tmp_path)

    assert "copy.yml" in raised.value.problems[0].message
    assert "qwen-v1.0.0.yaml" in raised.value.problems[0].message


def test_another_broken_template_in_the_folder_is_no_hindrance(tmp_path: Path) -> None:
    write_versions(tmp_path, "v1.0.0")
    (tmp_path / "other.yaml").write_text("a: [qwen")

    assert resolve_template("qwen", tmp_path).version == "v1.0.0"


def test_a_folder_without_templates_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as raised:
        resolve_template("qwen", tmp_path / "nowhere")

    assert raised.value.problems[0].code == "unknown_template"
    assert "nowhere" in str(raised.value)


def test_the_builtin_models_are_those_that_are_shipped() -> None:
    shipped = {f"builtin:{path.stem}" for path in (PROJECT / "runtime" / "models").glob("*.gguf")}

    assert set(BUILTIN_MODELS) == shipped


def test_the_launch_takes_every_option_that_a_llamacpp_template_may_have(tmp_path: Path) -> None:
    options = ", ".join(f"{name}: 8" for name in sorted(LLAMACPP_OPTIONS))
    text = (PROJECT / "jobs" / "templates" / "tiny-chat.yaml").read_text()
    template = load_text(
        tmp_path,
        text.partition("  engine_args:")[0]
        + f"  engine_args: {{{options}}}\n  supported_endpoints: [/v1/completions]\n",
    )

    assert list_llamacpp_refusals(template) == []
