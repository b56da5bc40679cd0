"""The llama.cpp server as its own process: the OpenAI endpoints, its key, and one clear sentence for every wrong start."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runtime.llamacpp_server import MODELS_DIR, find_model
from schemas.errors import SpecError

pytestmark = pytest.mark.wire
ROOT = Path(__file__).parents[2]
KEY = "a-key"


class Server:
    def __init__(self, process: subprocess.Popen[bytes], port: int, seconds: float) -> None:
        self.process = process
        self.port = port
        self.seconds = seconds

    def ask(self, path: str, body: Any = None, key: str = KEY) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Authorization": f"Bearer {key}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def post(self, path: str, body: Any) -> Any:
        status, text = self.ask(path, body)
        assert status == 200, text
        return json.loads(text)


def find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def begin(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "runtime.llamacpp_server", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env={"PATH": os.environ["PATH"]})


@contextlib.contextmanager
def serve(folder: Path, *arguments: str) -> Iterator[Server]:
    key_file = folder / "key"
    key_file.write_text(f"{KEY}\n")
    port = find_free_port()
    began = time.monotonic()
    process = begin("--port", str(port), "--api-key-file", str(key_file), *arguments)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                break
            assert time.monotonic() - began < 20
            time.sleep(0.01)
        yield Server(process, port, time.monotonic() - began)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("chat"), "--model", "builtin:tiny-chat") as server:
        yield server


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    arguments = ("--model", "builtin:tiny-embed", "--embeddings", "--ctx", "512", "--alias", "vectors")
    with serve(tmp_path_factory.mktemp("embeddings"), *arguments) as server:
        yield server


def ask_chat(server: Server, text: str, **options: Any) -> Any:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return server.post("/v1/chat/completions", {"messages": messages, "temperature": 0} | options)


def wait_until_busy(server: Server) -> None:
    deadline = time.monotonic() + 10
    while b"llamacpp:requests_processing 0" in server.ask("/metrics")[1]:
        assert time.monotonic() < deadline


def run_to_its_end(*arguments: str) -> tuple[int, str]:
    process = begin(*arguments)
    _, err = process.communicate(timeout=20)
    return process.returncode, err.decode()


def test_the_server_is_up_within_seconds(chat: Server) -> None:
    assert chat.seconds < 5


def test_a_chat_gets_an_answer_with_usage(chat: Server) -> None:
    answer = ask_chat(chat, "The pump is broken.", max_tokens=12)

    assert answer["model"] == "tiny-chat"
    assert len(answer["choices"][0]["message"]["content"]) > 10
    assert 1 <= answer["usage"]["completion_tokens"] <= 12
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")


def test_answers_at_temperature_0_are_the_same_whatever_runs_beside_them(chat: Server) -> None:
    questions = [f"Question {number}: where is my order?" for number in range(24)]
    alone = [ask_chat(chat, question, max_tokens=32) for question in questions]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda question: ask_chat(chat, question, max_tokens=32), questions))

    contents = [[answer["choices"][0]["message"]["content"] for answer in answers] for answers in (alone, together)]
    assert contents[0] == contents[1]
    assert len(set(contents[0])) > 12


def test_some_answers_end_by_themselves_and_others_at_their_limit(chat: Server) -> None:
    answers = [ask_chat(chat, f"Ticket {number}", max_tokens=16) for number in range(30)]

    assert {answer["choices"][0]["finish_reason"] for answer in answers} == {"stop", "length"}


def test_an_answer_without_a_limit_is_bounded(chat: Server) -> None:
    body = {"prompt": "the", "temperature": 1.5, "seed": 1, "logit_bias": [[2, False]]}

    assert chat.post("/v1/completions", body)["usage"]["completion_tokens"] == 64


def test_other_alphabets_are_understood_and_the_answer_is_valid_text(chat: Server) -> None:
    answer = ask_chat(chat, "Grüße! 日本語 и русский, 🙂", temperature=2.0, seed=7, max_tokens=48)

    assert answer["choices"][0]["message"]["content"].isascii()


def test_a_wrong_key_is_refused_but_health_is_for_all(chat: Server) -> None:
    assert chat.ask("/v1/models", key="wrong")[0] == 401
    assert chat.ask("/health", key="")[0] == 200


def test_metrics_count_what_was_done(chat: Server) -> None:
    ask_chat(chat, "Count me", max_tokens=4)

    status, text = chat.ask("/metrics")

    assert status == 200
    assert b"llamacpp:requests_processing 0" in text


def test_texts_that_share_words_have_close_vectors(embeddings: Server) -> None:
    texts = ["rent the drill", "you can rent our drill", "the late invoice"]

    answer = embeddings.post("/v1/embeddings", {"model": "vectors", "input": texts})

    one, two, three = (entry["embedding"] for entry in answer["data"])
    assert sum(a * b for a, b in zip(one, two, strict=True)) > 0.6
    assert abs(sum(a * b for a, b in zip(one, three, strict=True))) < 0.4
    assert len(one) == 128
    assert answer["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_even_with_requests_in_flight(number: int, tmp_path: Path) -> None:
    with serve(tmp_path, "--model", "builtin:tiny-chat", "--ctx", "8192") as server, ThreadPoolExecutor(8) as pool:
        body = {"prompt": "the", "max_tokens": 8000, "logit_bias": [[2, False]]}
        for _ in range(8):
            pool.submit(server.ask, "/v1/completions", body)
        wait_until_busy(server)
        began = time.monotonic()

        server.process.send_signal(number)

        assert server.process.wait(timeout=5) == 0
        assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("builtin:nope", "Built in are builtin:tiny-chat, builtin:tiny-embed"),
        ("/no/such/file.gguf", "/no/such/file.gguf: cannot read the model: No such file"),
        (__file__, "the model is not a GGUF file"),
        ("/", "cannot read the model: Is a directory"),
    ],
)
def test_a_model_that_is_none_is_named(model: str, words: str) -> None:
    code, err = run_to_its_end("--model", model, "--port", str(find_free_port()))

    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "half.gguf"
    model.write_bytes(find_model("builtin:tiny-chat").read_bytes()[:50_000])

    code, err = run_to_its_end("--model", str(model), "--port", str(find_free_port()))

    assert code == 6
    assert f"{model}: llama.cpp could not load the model" in err
    assert "Traceback" not in err


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, err = run_to_its_end("--model", "builtin:tiny-chat", "--port", str(port))

    assert code == 6
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--port", "70000"),
        ("--port", "x"),
        ("--port", "1", "--parallel", "0"),
        ("--port", "1", "--ctx", "-5"),
        ("--port", "1", "--api-key-file", "/no/such/key"),
        ("--port", "1", "--chat-template-file", "/no/such/template"),
        ("--port", "1", "--surprise"),
        (),
    ],
)
def test_wrong_arguments_are_explained(arguments: tuple[str, ...]) -> None:
    code, err = run_to_its_end("--model", "builtin:tiny-chat", *arguments)

    assert code == 2
    assert "llamacpp-server: " in err
    assert "Traceback" not in err


def test_only_models_that_were_made_are_shipped() -> None:
    assert sorted(path.stem for path in MODELS_DIR.glob("*.gguf")) == ["tiny-chat", "tiny-embed"]
    with pytest.raises(SpecError):
        find_model("builtin:../models/tiny-chat")


def test_the_script_makes_the_models_again(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf", reason="needed only to make the models")
    numpy = pytest.importorskip("numpy")
    subprocess.run([sys.executable, str(MODELS_DIR / "make_tiny_models.py"), str(tmp_path)], check=True, timeout=60)

    for path in MODELS_DIR.glob("*.gguf"):
        made, stored = (gguf.GGUFReader(file).tensors for file in (tmp_path / path.name, path))
        assert path.stat().st_size < 400_000
        assert [tensor.name for tensor in made] == [tensor.name for tensor in stored]
        assert all(numpy.allclose(one.data, other.data, atol=2e-3) for one, other in zip(made, stored, strict=True))
