"""The start script of a pod and its dead-man, run for real by /bin/sh with programs of the test on PATH."""

from __future__ import annotations

import base64
import http.server
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from providers.runpod.start import encode_host_key, render_start_script
from tests.providers.fake_api import HOST_KEYS, KEYS

pytestmark = pytest.mark.wire

POD_KEY = "rpa_POD_SCOPED_SECRET"
TOOLS = ("sh", "cat", "date", "stat", "sleep", "id", "mkdir", "base64", "grep", "env", "chmod", "touch", "rm")
SSHD = '#!/bin/sh\nfor each; do echo "arg: $each"; done\nenv | sed s/^/env:\\ /\n'
WAIT_S = 20.0
HAS_SSHD = any(Path(folder, "sshd").exists() for folder in ("/usr/local/sbin", "/usr/sbin", "/sbin"))
without_sshd = pytest.mark.skipif(HAS_SSHD, reason="this computer has an sshd of its own, which the script would find")


class Pod:
    """A folder as a pod's disk: HOME, and a bin folder that is almost the whole PATH."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in (*TOOLS, "sed"):
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)
        self.env = {
            "HOME": str(self.home),
            "PATH": str(self.bin),
            "PUBLIC_KEY": KEYS.public,
            "SSH_HOST_ED25519_KEY": encode_host_key(HOST_KEYS.private),
            "RUNPOD_POD_ID": "pod1",
            "RUNPOD_API_KEY": POD_KEY,
            "LEASEHOLD_EXPIRES_AT": str(int(time.time()) + 3600),
            "LEASEHOLD_API_URL": "http://127.0.0.1:9/v2",
            "LEASEHOLD_DEAD_MAN_INTERVAL_S": "0.1",
            "LEASEHOLD_DEAD_MAN_PATIENCE_S": "0.1",
            "HF_TOKEN": "hf_secret",
            "VLLM_USE_V1": "1",
        }
        self.processes: list[subprocess.Popen[str]] = []

    def add(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def link(self, name: str, target: str) -> None:
        (self.bin / name).symlink_to(target)

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["/bin/sh", "-c", render_start_script()],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def run(self) -> tuple[int, str]:
        """Start it and end everything once its first process has ended."""
        process = self.start()
        code = process.wait(timeout=WAIT_S)
        self.end(process)
        output, _ = process.communicate(timeout=WAIT_S)
        return code, output

    def end(self, process: subprocess.Popen[str]) -> None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


class Service:
    """The pod's side of the API: answers by a table, remembers what came."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str, str]] = []
        self.statuses: dict[str, int] = {}
        self.on_call: Callable[[], None] = lambda: None
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                service.calls.append((self.command, self.path, self.headers.get("Authorization", ""), body))
                service.on_call()
                self.send_response(service.statuses.get(f"{self.command} {self.path}", 200))
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v2"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    @property
    def routes(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.calls]


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    pod = Pod(tmp_path)
    yield pod
    for process in pod.processes:
        pod.end(process)
        process.wait(timeout=WAIT_S)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_sshd_gets_our_host_key_our_client_key_and_no_secret(pod: Pod) -> None:
    pod.add("sshd", SSHD)
    pod.link("curl", "/bin/true")

    code, output = pod.run()

    assert code == 0
    folder = pod.home / ".leasehold"
    assert (folder / "host_key").read_text() == HOST_KEYS.private
    assert stat.S_IMODE((folder / "host_key").stat().st_mode) == 0o600
    assert (folder / "authorized_keys").read_text() == f"{KEYS.public}\n"
    arguments = [line.removeprefix("arg: ") for line in output.splitlines() if line.startswith("arg: ")]
    assert arguments[:7] == ["-D", "-e", "-f", "/dev/null", "-p", "22", "-h"]
    assert "PasswordAuthentication=no" in arguments
    environment = [line for line in output.splitlines() if line.startswith("env: ")]
    assert not any("SSH_HOST_ED25519_KEY" in line or POD_KEY in line for line in environment)


def test_sessions_get_what_an_engine_needs_and_nothing_secret(pod: Pod) -> None:
    pod.add("sshd", SSHD)
    pod.link("curl", "/bin/true")
    pod.env |= {"LD_LIBRARY_PATH": "/usr/local/nvidia/lib64", "HF_HOME": "/workspace/huggingface"}

    pod.run()

    lines = (pod.home / ".ssh" / "environment").read_text().splitlines()
    assert {line.split("=")[0] for line in lines} == {"PATH", "LD_LIBRARY_PATH", "HF_HOME", "VLLM_USE_V1"}


def test_the_port_can_be_chosen_from_outside(pod: Pod) -> None:
    pod.add("sshd", SSHD)
    pod.link("curl", "/bin/true")
    pod.env["LEASEHOLD_SSH_PORT"] = "2222"

    assert "arg: 2222" in pod.run()[1].splitlines()


@without_sshd
def test_a_missing_sshd_is_installed(pod: Pod) -> None:
    pod.link("curl", "/bin/true")
    install = f"cat >{pod.bin}/sshd <<'END'\n{SSHD}END\nchmod 755 {pod.bin}/sshd"
    pod.add("apt-get", f'#!/bin/sh\necho "apt-get $*"\n[ "$1" != install ] || {{ {install}\n}}\n')

    code, output = pod.run()

    assert code == 0
    assert "apt-get update -q" in output
    assert "--no-install-recommends openssh-server" in output
    assert "arg: -D" in output


@without_sshd
def test_an_image_where_sshd_cannot_be_installed_says_so_and_ends(pod: Pod) -> None:
    pod.link("curl", "/bin/true")
    pod.add("apt-get", "#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    (pod.bin / "sleep").unlink()
    pod.add("sleep", "#!/bin/sh\nexec /bin/sleep 0.05\n")

    code, output = pod.run()

    assert code == 1
    assert "Unable to locate package" in output
    assert "this image has no sshd" in output


def test_a_host_key_that_is_missing_is_an_error(pod: Pod) -> None:
    pod.add("sshd", SSHD)
    pod.link("curl", "/bin/true")
    del pod.env["SSH_HOST_ED25519_KEY"]

    code, output = pod.run()

    assert code == 1 and "SSH_HOST_ED25519_KEY" in output


def start_with_service(pod: Pod, service: Service, client: str) -> subprocess.Popen[str]:
    pod.env["LEASEHOLD_API_URL"] = service.url
    pod.add("sshd", "#!/bin/sh\nexec sleep 60\n")
    pod.link(client, shutil.which("curl") or "curl" if client == "curl" else os.path.realpath(sys.executable))
    return pod.start()


@pytest.mark.parametrize("client", ["curl", "python3"])
def test_at_expiry_the_pod_deletes_itself_with_its_own_key(pod: Pod, service: Service, client: str) -> None:
    arguments: list[str] = []
    service.on_call = lambda: arguments.extend(
        word for child in psutil.Process().children(recursive=True) for word in read_arguments(child)
    )
    pod.env["LEASEHOLD_EXPIRES_AT"] = str(int(time.time()) + 1)
    start_with_service(pod, service, client)

    wait_until(lambda: "DELETE /v2/pods/pod1" in service.routes)

    assert service.routes[0] == "GET /v2/pods/pod1"
    assert {authorization for _, _, authorization, _ in service.calls} == {f"Bearer {POD_KEY}"}
    assert any("/v2/pods/pod1" in word for word in arguments)
    assert not any(POD_KEY in word for word in arguments)


def read_arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_every_way_is_tried_in_order_until_the_pod_is_gone(pod: Pod, service: Service) -> None:
    service.statuses = {"DELETE /v2/pods/pod1": 403, "POST /v2/pods/pod1/action": 404, "POST /graphql": 401}
    pod.env |= {"LEASEHOLD_EXPIRES_AT": "1", "LEASEHOLD_GRAPHQL_URL": service.url.replace("/v2", "/graphql")}
    pod.add("runpodctl", f'#!/bin/sh\necho "$*" >>{pod.home}/runpodctl.log\nexit 1\n')
    process = start_with_service(pod, service, "curl")

    wait_until(lambda: service.routes.count("DELETE /v2/pods/pod1") >= 2)

    posts = [(path, body) for method, path, _, body in service.calls if method == "POST"]
    assert posts[0] == ("/v2/pods/pod1/action", '{"action":"terminate"}')
    assert posts[1] == ("/graphql", '{"query":"mutation { podTerminate(input: {podId: \\"pod1\\"}) }"}')
    assert posts[2] == ("/v2/pods/pod1/action", '{"action":"stop"}')
    assert (pod.home / "runpodctl.log").read_text().startswith("remove pod pod1")
    pod.end(process)
    output, _ = process.communicate(timeout=WAIT_S)
    assert "ending this pod: the lease has expired" in output
    assert POD_KEY not in output


def test_a_pod_that_nobody_was_heard_of_ends_after_its_grace(pod: Pod, service: Service) -> None:
    pod.env |= {"LEASEHOLD_HEARTBEAT_TIMEOUT_S": "1", "LEASEHOLD_BOOT_GRACE_S": "0"}
    start_with_service(pod, service, "curl")

    wait_until(lambda: "DELETE /v2/pods/pod1" in service.routes)


def test_a_fresh_heartbeat_keeps_a_pod_and_a_stale_one_ends_it(pod: Pod, service: Service) -> None:
    pod.env |= {"LEASEHOLD_HEARTBEAT_TIMEOUT_S": "2", "LEASEHOLD_BOOT_GRACE_S": "1"}
    start_with_service(pod, service, "curl")
    wait_until(lambda: (pod.home / ".leasehold").is_dir())
    heartbeat = pod.home / ".leasehold" / "heartbeat"
    beats_until = time.monotonic() + 4.2
    while time.monotonic() < beats_until:
        heartbeat.touch()
        time.sleep(0.1)
    kept = "DELETE /v2/pods/pod1" not in service.routes

    wait_until(lambda: "DELETE /v2/pods/pod1" in service.routes)

    assert kept


@pytest.mark.parametrize("reason", ["expiry", "silence"])
def test_a_clock_that_is_set_back_prolongs_nothing(pod: Pod, service: Service, reason: str) -> None:
    real, offset = shutil.which("date"), pod.home.parent / "offset"
    offset.write_text("0")
    (pod.bin / "date").unlink()
    pod.add("date", f"#!/bin/sh\necho $(($({real} +%s) + $(cat {offset})))\n")
    if reason == "expiry":
        pod.env["LEASEHOLD_EXPIRES_AT"] = str(int(time.time()) + 5)
    else:
        pod.env |= {"LEASEHOLD_HEARTBEAT_TIMEOUT_S": "2", "LEASEHOLD_BOOT_GRACE_S": "0"}
    process = start_with_service(pod, service, "curl")
    wait_until(lambda: service.routes != [])
    (pod.home / ".leasehold" / "heartbeat").touch()
    offset.write_text("-3600")

    wait_until(lambda: "DELETE /v2/pods/pod1" in service.routes)

    pod.end(process)
    output, _ = process.communicate(timeout=WAIT_S)
    assert {"expiry": "the lease has expired", "silence": "no heartbeat for"}[reason] in output


def test_without_a_heartbeat_timeout_only_the_expiry_counts(pod: Pod, service: Service) -> None:
    pod.env |= {"LEASEHOLD_HEARTBEAT_TIMEOUT_S": "0", "LEASEHOLD_BOOT_GRACE_S": "0"}
    start_with_service(pod, service, "curl")
    wait_until(lambda: service.routes != [])
    time.sleep(1.5)

    assert service.routes == ["GET /v2/pods/pod1"]


def test_a_pod_key_without_rights_is_reported_at_the_start(pod: Pod, service: Service) -> None:
    service.statuses = {"GET /v2/pods/pod1": 403}
    process = start_with_service(pod, service, "curl")
    wait_until(lambda: service.routes != [])
    time.sleep(0.3)
    pod.end(process)

    assert "cannot see the pod (HTTP 403)" in process.communicate(timeout=WAIT_S)[0]


def test_the_script_is_small_and_holds_no_secret() -> None:
    script = render_start_script()

    assert len(script.encode()) < 12_000
    assert "@DEAD_MAN@" not in script
    assert base64.b64encode(HOST_KEYS.private.encode()).decode() not in script
