"""Where the keys for S3 come from, and which endpoints are refused."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runtime.objects.object_settings import ObjectAddress, is_object_address, load_object_settings, parse_address
from schemas.errors import CredentialError, SpecError

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "sesame", "HOME": "/nonexistent"}


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://b/a/c.jsonl", "b", "a/c.jsonl"),
        ("s3://b/a/", "b", "a"),
        ("s3://b/", "b", ""),
        ("s3://b", "b", ""),
        ("s3://b/with space/ü", "b", "with space/ü"),
    ],
)
def test_an_address_is_a_bucket_and_a_key(text: str, bucket: str, key: str) -> None:
    assert parse_address(text) == ObjectAddress(bucket, key)


@pytest.mark.parametrize(
    "text", ["s3://", "s3:///a", "gs://b/a", "b/a", "s3://b/a//c", "s3://b/a/../c", "s3://b/./../c"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="no address in S3"):
        parse_address(text)


def test_paths_are_not_addresses() -> None:
    assert is_object_address("s3://b/a")
    assert not is_object_address("data/s3://b")


def test_keys_region_and_endpoint_come_from_the_usual_variables() -> None:
    settings = load_object_settings(
        {
            **KEYS,
            "AWS_SESSION_TOKEN": "token",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": "https://s3.example/",
        }
    )

    assert (settings.key_id, settings.secret, settings.session_token) == ("id", "sesame", "token")
    assert (settings.region, settings.endpoint) == ("eu-west-1", "https://s3.example")
    assert "sesame" not in repr(settings) and "token" not in repr(settings)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000", "http://localhost:9000", "http://[::1]:9000", "https://x"])
def test_an_endpoint_here_or_with_tls_is_taken(url: str) -> None:
    assert load_object_settings({**KEYS, "AWS_ENDPOINT_URL": url}).endpoint == url


@pytest.mark.parametrize(
    "url", ["http://s3.example", "http://10.0.0.1", "http://127.0.0.1.example", "s3.example", "ftp://x"]
)
def test_an_endpoint_elsewhere_without_tls_is_refused(url: str) -> None:
    with pytest.raises(SpecError, match="would show keys and data"):
        load_object_settings({**KEYS, "AWS_ENDPOINT_URL": url})


def write_profiles(home: Path) -> None:
    (home / ".aws").mkdir()
    (home / ".aws/credentials").write_text(
        "[default]\naws_access_key_id = d\naws_secret_access_key = ds\n"
        "[work]\naws_access_key_id = w\naws_secret_access_key = %ws\naws_session_token = wt\n"
    )
    (home / ".aws/config").write_text("[default]\nregion = us-west-2\n[profile work]\nregion = eu-north-1\n")


def test_a_profile_gives_what_the_variables_do_not(tmp_path: Path) -> None:
    write_profiles(tmp_path)
    default = load_object_settings({"HOME": str(tmp_path)})
    work = load_object_settings({"HOME": str(tmp_path), "AWS_PROFILE": "work"})
    mixed = load_object_settings({**KEYS, "HOME": str(tmp_path), "AWS_PROFILE": "work"})

    assert (default.key_id, default.secret, default.region) == ("d", "ds", "us-west-2")
    assert (work.key_id, work.secret, work.session_token, work.region) == ("w", "%ws", "wt", "eu-north-1")
    assert (mixed.key_id, mixed.session_token) == ("id", "")


def test_a_profile_that_is_not_there_is_exit_3(tmp_path: Path) -> None:
    write_profiles(tmp_path)

    with pytest.raises(CredentialError, match="no profile 'other'"):
        load_object_settings({"HOME": str(tmp_path), "AWS_PROFILE": "other"})


def test_a_profile_file_that_cannot_be_read_is_exit_3(tmp_path: Path) -> None:
    write_profiles(tmp_path)
    (tmp_path / ".aws/credentials").write_text("no section\n")

    with pytest.raises(CredentialError, match="cannot be read"):
        load_object_settings({"HOME": str(tmp_path)})


def test_without_keys_it_is_exit_3() -> None:
    with pytest.raises(CredentialError, match="there are no keys for S3"):
        load_object_settings({"HOME": "/nonexistent", "AWS_EC2_METADATA_DISABLED": "true"})


@pytest.mark.parametrize(("status", "is_a_role"), [(200, True), (400, False), (404, False)])
def test_only_amazons_own_metadata_service_counts_as_a_role(
    monkeypatch: pytest.MonkeyPatch, status: int, is_a_role: bool
) -> None:
    """At the same address Azure's answers, where GitHub's runners are, and the library would ask it for minutes."""
    with serve_metadata(status) as place:
        monkeypatch.setattr("runtime.objects.object_settings._METADATA", place)
        if is_a_role:
            assert load_object_settings({"HOME": "/nonexistent"}).key_id == ""
        else:
            with pytest.raises(CredentialError, match="there are no keys for S3"):
                load_object_settings({"HOME": "/nonexistent"})


@contextlib.contextmanager
def serve_metadata(status: int) -> Iterator[tuple[str, int]]:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            is_asked_well = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            self.send_response(status if is_asked_well else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield "127.0.0.1", server.server_address[1]
        finally:
            server.shutdown()
            thread.join(5)


@pytest.mark.parametrize(
    ("given", "missing"),
    [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")],
)
def test_half_a_key_is_exit_3_also_where_the_platform_may_have_one(given: str, missing: str) -> None:
    environ = {"HOME": "/nonexistent", given: "x", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}

    with pytest.raises(CredentialError, match="half of the key") as caught:
        load_object_settings(environ)

    assert caught.value.where == missing


def test_a_role_of_the_platform_needs_no_keys() -> None:
    settings = load_object_settings({"HOME": "/nonexistent", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"})

    assert settings.key_id == ""
