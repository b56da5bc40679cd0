"""Which S3 service, and with which keys: read from the usual AWS_* variables and `~/.aws/credentials`. Used by object_store."""

from __future__ import annotations

import configparser
import contextlib
import http.client
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from schemas.errors import CredentialError, SpecError
from schemas.loopback import is_loopback

SCHEME = "s3://"
_METADATA = ("169.254.169.254", 80)
_METADATA_TIMEOUT_S = 1.0
# Where these are set, the library asks the platform for keys that live for some hours, and asks again in time.
_PLATFORM_KEYS = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


class ObjectAddress(msgspec.Struct, frozen=True):
    """A bucket and a key in it; a prefix is a key without slashes at its ends, "" for the whole bucket."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"


class ObjectSettings(msgspec.Struct, frozen=True, kw_only=True):
    """endpoint "" is Amazon's own. Without a key id the platform gives keys (a role). ca_file: more authorities to trust."""

    endpoint: str = ""
    region: str = "us-east-1"
    key_id: str = ""
    secret: str = ""
    session_token: str = ""
    ca_file: str = ""

    def __repr__(self) -> str:
        return f"ObjectSettings({self.endpoint or 'Amazon S3'}, {self.region}, keys withheld)"


def is_object_address(text: str) -> bool:
    """Whether a job's `input` or `output` is in S3."""
    return text.startswith(SCHEME)


def parse_address(text: str) -> ObjectAddress:
    """The address that text is; raises SpecError for what is none."""
    bucket, _, key = text.removeprefix(SCHEME).partition("/")
    if (
        not is_object_address(text)
        or not bucket
        or any(part in ("", ".", "..") for part in key.strip("/").split("/")[1:])
    ):
        raise SpecError(f"{text!r} is no address in S3", fix="Write s3://bucket/some/prefix/.")
    return ObjectAddress(bucket, key.strip("/"))


def load_object_settings(environ: Mapping[str, str]) -> ObjectSettings:
    """Raises SpecError for an endpoint without TLS that is not this computer, CredentialError when there are no keys."""
    profile = _load_profile(environ)
    settings = ObjectSettings(
        endpoint=_choose_endpoint(environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL", "")),
        region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or profile.get("region") or "us-east-1",
        key_id=environ.get("AWS_ACCESS_KEY_ID") or profile.get("aws_access_key_id", ""),
        secret=environ.get("AWS_SECRET_ACCESS_KEY") or profile.get("aws_secret_access_key", ""),
        session_token=_choose_session_token(environ, profile),
        ca_file=environ.get("AWS_CA_BUNDLE", ""),
    )
    if bool(settings.key_id) != bool(settings.secret):
        missing = "AWS_SECRET_ACCESS_KEY" if settings.key_id else "AWS_ACCESS_KEY_ID"
        raise CredentialError("half of the key for S3 is missing", where=missing, fix=f"Set {missing}, or neither.")
    if not (settings.key_id and settings.secret) and not _has_platform_keys(environ):
        raise CredentialError(
            "there are no keys for S3",
            fix="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for a profile of ~/.aws/credentials.",
        )
    return settings


def _choose_endpoint(url: str) -> str:
    parts = urlsplit(url)
    if not url or parts.scheme == "https":
        return url.rstrip("/")
    if parts.scheme == "http" and is_loopback(url):
        return url.rstrip("/")
    raise SpecError(
        f"{parts.scheme or 'this'}://{parts.hostname or ''} would show keys and data to whoever is on the way",
        where="AWS_ENDPOINT_URL",
        fix="Use https://; plain http:// only for a server on this computer.",
    )


def _choose_session_token(environ: Mapping[str, str], profile: Mapping[str, str]) -> str:
    """The token belongs to the keys beside it."""
    if environ.get("AWS_ACCESS_KEY_ID"):
        return environ.get("AWS_SESSION_TOKEN", "")
    return profile.get("aws_session_token", "")


def _load_profile(environ: Mapping[str, str]) -> dict[str, str]:
    """A profile's static keys; the library does not read this file itself."""
    name = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"
    home = Path(environ.get("HOME", "~")).expanduser()
    found: dict[str, str] = {}
    files = (
        (environ.get("AWS_CONFIG_FILE") or home / ".aws/config", name if name == "default" else f"profile {name}"),
        (environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws/credentials", name),
    )
    for path, section in files:
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise CredentialError("this file cannot be read", where=str(path), fix="Correct it.") from error
        found |= dict(parser[section]) if parser.has_section(section) else {}
    if not found and environ.get("AWS_PROFILE"):
        raise CredentialError(f"there is no profile {name!r}", where="AWS_PROFILE", fix="See ~/.aws/credentials.")
    return found


def _has_platform_keys(environ: Mapping[str, str]) -> bool:
    """A task's or a machine's role. Asked for here, since the library would try for minutes where there is no such service.

    Other clouds have a service at the same address, GitHub's own runners among them; only Amazon's gives this token.
    """
    if any(environ.get(name) for name in _PLATFORM_KEYS):
        return True
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    connection = http.client.HTTPConnection(*_METADATA, timeout=_METADATA_TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request("PUT", "/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
