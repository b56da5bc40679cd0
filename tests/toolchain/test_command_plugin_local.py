"""The stand-in for the `command` plugin, local commands, through the real Pulumi engine."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests.toolchain.processes import find_children, is_alive, read_pid, wait_until

pytestmark = pytest.mark.engine


def command(name: str = "one", /, **inputs: Any) -> dict[str, Any]:
    return {"name": name, "inputs": inputs}


def test_outputs_lose_one_trailing_newline(stack):
    assert stack.up(command(create="printf 'a\\n\\n'; printf 'b' >&2")).returncode == 0

    assert stack.outputs()["one"] == {"stdout": "a\n", "stderr": "b"}


def test_a_failing_command_shows_its_exit_code_and_its_output_and_is_not_in_the_state(stack):
    result = stack.up(command(create="echo out; echo reason >&2; exit 3"))

    assert result.returncode != 0
    assert "exit status 3: running" in result.stdout
    assert "reason" in result.stdout
    assert "command:local:Command" not in stack.state()


def test_stdin_environment_directory_and_interpreter_reach_the_command(stack, tmp_path):
    (tmp_path / "there").mkdir()
    stack.up(
        command(
            create="import os, sys; print(sys.stdin.read(), os.environ['COLOUR'], os.getcwd())",
            interpreter=["python3", "-c"],
            environment={"COLOUR": "green"},
            stdin="typed",
            dir=str(tmp_path / "there"),
        )
    )

    assert stack.outputs()["one"]["stdout"] == f"typed green {tmp_path / 'there'}"


def test_a_changed_create_runs_again_when_there_is_no_update(stack, tmp_path):
    log = tmp_path / "log"
    stack.up(command(create=f"echo first >> {log}", delete=f"echo deleted >> {log}"))
    stack.up(command(create=f"echo second >> {log}", delete=f"echo deleted >> {log}"))

    assert log.read_text().split() == ["first", "second"]


def test_nothing_runs_when_nothing_changed(stack, tmp_path):
    log = tmp_path / "log"
    stack.up(command(create=f"echo first >> {log}", triggers=["a"], environment={"A": "b"}))
    result = stack.up(command(create=f"echo first >> {log}", triggers=["a"], environment={"A": "b"}))

    assert "unchanged" in result.stdout
    assert log.read_text().split() == ["first"]


def test_update_runs_instead_of_create_and_sees_the_previous_output(stack, tmp_path):
    log = tmp_path / "log"
    update = f'echo "was $PULUMI_COMMAND_STDOUT/$PULUMI_COMMAND_STDERR" >> {log}; echo updated'
    stack.up(command(create="echo out; echo err >&2", update=update))
    stack.up(command(create="echo out; echo err >&2", update=update, environment={"CHANGED": "1"}))

    assert log.read_text() == "was out/err\n"
    assert stack.outputs()["one"]["stdout"] == "updated"


def test_the_previous_output_is_kept_out_of_the_environment_on_request(stack, tmp_path):
    log = tmp_path / "log"
    show = f'echo "<$PULUMI_COMMAND_STDOUT>" >> {log}'
    stack.up(command(create="echo out", delete=show, add_previous_output_in_env=False))
    stack.destroy()

    assert log.read_text() == "<>\n"


def test_delete_runs_the_stored_text_with_the_previous_output(stack, tmp_path):
    log = tmp_path / "log"
    stack.up(command(create="echo hello", delete=f"echo old >> {log}"))
    stack.up(command(create="echo hello", delete=f'echo "new $PULUMI_COMMAND_STDOUT" >> {log}'))
    assert stack.destroy().returncode == 0

    assert log.read_text() == "new hello\n"


def test_a_failing_delete_stops_destroy_and_keeps_the_resource(stack, tmp_path):
    stack.up(command(create="true", delete=f"test -e {tmp_path}/may-go"))
    result = stack.destroy()

    assert result.returncode != 0
    assert "command:local:Command" in stack.state()
    (tmp_path / "may-go").touch()


@pytest.mark.parametrize(
    ("before", "after"), [(["a", 1], ["a", 2]), (["a"], ["a", "b"]), (None, ["a"])], ids=["changed", "longer", "new"]
)
def test_a_changed_trigger_creates_the_new_one_before_it_deletes_the_old_one(stack, tmp_path, before, after):
    log = tmp_path / "log"
    inputs = {"create": f"echo create >> {log}", "delete": f"echo delete >> {log}"}
    stack.up(command(**inputs, triggers=before))
    result = stack.up(command(**inputs, triggers=after))

    assert "1 replaced" in result.stdout
    assert log.read_text().split() == ["create", "create", "delete"]


def test_a_secret_stdin_is_never_in_the_state_in_clear(stack):
    result = stack.up({**command(create="wc -c", stdin="hunter2-hunter2", logging="none"), "secret": ["stdin"]})

    assert stack.outputs()["one"]["stdout"].strip() == "15"
    assert "hunter2" not in stack.state()
    assert "hunter2" not in result.stdout
    assert all("hunter2" not in file.read_text() for file in (stack.folder / "state").rglob("*.json"))


def test_an_output_that_is_declared_secret_is_encrypted(stack):
    stack.up({**command(create="echo hunter2", logging="none"), "secret_outputs": ["stdout"]})

    assert stack.outputs()["one"]["stdout"] == "hunter2"
    assert '"stdout": "hunter2"' not in stack.state()


@pytest.mark.parametrize(
    ("logging", "shown"),
    [(None, {"alpha", "omega"}), ("stdout", {"alpha"}), ("stderr", {"omega"}), ("none", set())],
)
def test_logging_says_which_streams_the_engine_shows(stack, logging, shown):
    result = stack.up(command(create="echo al''pha; echo ome''ga >&2", logging=logging))

    assert {word for word in ("alpha", "omega") if word in result.stdout.partition("Outputs:")[0]} == shown


def test_a_preview_runs_nothing(stack, tmp_path):
    stack.declare(command(create=f"touch {tmp_path}/ran", delete="true"))
    result = stack.run("preview", "--non-interactive")

    assert result.returncode == 0, result.stdout
    assert not (tmp_path / "ran").exists()


def test_an_unsupported_input_is_refused_by_name_before_anything_runs(stack, tmp_path):
    result = stack.up(command(create=f"touch {tmp_path}/ran", asset_paths=["*"]))

    assert result.returncode != 0
    assert "assetPaths" in result.stdout + result.stderr
    assert not (tmp_path / "ran").exists()


def test_a_time_limit_ends_the_command(stack, tmp_path):
    result = stack.up({**command(create=f"echo $$ > {tmp_path}/pid; sleep 60"), "timeout": "1s"})

    assert result.returncode != 0
    assert "deadline exceeded" in result.stdout
    assert not is_alive(read_pid(tmp_path / "pid"))


def test_twenty_four_commands_run_at_the_same_time(stack, tmp_path):
    # Each one waits until all the others have started: with fewer at a time this would never end.
    meet = f"touch {tmp_path}/$NAME.here; while [ $(ls {tmp_path} | grep -c here) -lt 24 ]; do sleep 0.1; done"
    names = [f"c{index}" for index in range(24)]
    stack.declare(*(command(name, create=meet, environment={"NAME": name}) for name in names))
    result = stack.run("up", "--yes", "--skip-preview", "--non-interactive", "--parallel", "32")

    assert result.returncode == 0, result.stdout


def test_an_interrupt_of_the_engine_ends_the_command_and_its_group_but_not_what_left_it(stack, tmp_path):
    detach = f"setsid sh -c 'echo $$ > {tmp_path}/detached; exec sleep 60' </dev/null >/dev/null 2>&1 &"
    stack.declare(command(create=f"{detach} echo $$ > {tmp_path}/leader; sleep 60 & echo $! > {tmp_path}/member; wait"))
    pulumi = stack.start("up", "--yes", "--skip-preview", "--non-interactive")
    leader, member, detached = (read_pid(tmp_path / name) for name in ("leader", "member", "detached"))
    pulumi.send_signal(signal.SIGINT)
    output, _ = pulumi.communicate(timeout=10)

    assert pulumi.returncode != 0, output
    assert not is_alive(leader)
    assert not is_alive(member)
    assert is_alive(detached)
    os.kill(detached, signal.SIGKILL)


def test_when_the_engine_is_killed_the_plugin_ends_and_takes_running_commands_along(stack, tmp_path):
    detach = f"setsid sh -c 'echo $$ > {tmp_path}/detached; exec sleep 60' </dev/null >/dev/null 2>&1 &"
    create = f"{detach} echo $PPID > {tmp_path}/plugin; echo $$ > {tmp_path}/leader; sleep 60"
    stack.declare(command(create=create))
    pulumi = stack.start("up", "--yes", "--skip-preview", "--non-interactive")
    plugin, leader, detached = (read_pid(tmp_path / name) for name in ("plugin", "leader", "detached"))
    others = [pid for pid in find_children(pulumi.pid) if pid != plugin]
    pulumi.kill()

    wait_until(lambda: not is_alive(plugin), "the plugin's end")
    wait_until(lambda: not is_alive(leader), "the command's end")
    assert is_alive(detached)
    for pid in (detached, *others):
        os.kill(pid, signal.SIGKILL)
    pulumi.communicate(timeout=10)


def test_refresh_keeps_what_is_known(stack):
    stack.up(command(create="echo hello", delete="true"))
    result = stack.run("refresh", "--yes", "--skip-preview", "--non-interactive")

    assert result.returncode == 0
    assert "hello" in json.dumps(stack.outputs())
