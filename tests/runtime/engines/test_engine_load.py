from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines.engine_load import EngineLoad, parse_load

VLLM = b"""# HELP vllm:num_requests_running Number of requests
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m}, \\"x"} 12.0
vllm:num_requests_running{engine="1",model_name="m"} 10.0
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="1",model_name="m"} 0.0
vllm:num_requests_waiting_by_reason{reason="capacity"} 99
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.75
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
vllm:generation_tokens_total{engine="0",model_name="m"} 1.5e+06
python_info{version="3.11"} 1.0
"""
LLAMACPP = b"""# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 4
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 7
llamacpp:tokens_predicted_total 123
llamacpp:kv_cache_usage_ratio -nan
"""


def test_vllm_is_summed_over_its_ranks() -> None:
    load = parse_load(VLLM)

    assert load == EngineLoad(running=22, waiting=3, cache_use=0.75, preemptions=2, generated_tokens=1.5e6)


def test_llamacpp_tells_running_and_waiting_and_no_token_counter_to_watch() -> None:
    assert parse_load(LLAMACPP) == EngineLoad(running=4, waiting=7, generated_tokens=-1)


@pytest.mark.parametrize(
    "page", [b"", b"\n\n", b"go_goroutines 7\n", b"<html>:</html>", b"vllm:num_requests_running x\n"]
)
def test_a_page_of_anything_else_is_none(page: bytes) -> None:
    assert parse_load(page) is None


@given(st.binary(max_size=300))
def test_no_page_crashes_the_reading(page: bytes) -> None:
    parse_load(b"vllm:num_requests_running" + page + b"\nvllm:num_requests_waiting{" + page)
