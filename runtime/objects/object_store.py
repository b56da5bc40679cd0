"""Objects in S3 below one prefix: small ones with conditions, large ones streamed. The one place that touches obstore.

Used by the dispatcher's sealing, and by `run` and `resume` for inputs, owners and results.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from runtime.objects.object_errors import explain_failure, is_missing, is_passing
from runtime.objects.object_settings import ObjectAddress, ObjectSettings
from schemas.errors import CloudError, LeaseholdError, SpecError

CHUNK_BYTES = 8 * 1024 * 1024
_MOST_CHUNKS = 9_000  # S3 takes 10,000 of an object
_AT_ONCE = 3
_WHOLE_TRIES = 3
# What the library raises; a missing key is the built-in FileNotFoundError, a cut body an OSError.
_FAILURES = (BaseError, OSError)


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long one request may take, and how often and how long it is tried again (503, SlowDown, cut connections)."""

    request_s: float = 60.0
    connect_s: float = 5.0
    tries: int = 9
    total_s: float = 150.0
    longest_pause_s: float = 10.0


USUAL = Patience()


class ObjectFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an object without reading it; key counts from the bucket."""

    key: str
    size: int
    etag: str


class ObjectStore:
    """Everything below `root`, whose key is put before every key given here. Safe to use from several threads."""

    def __init__(self, root: ObjectAddress, settings: ObjectSettings, patience: Patience = USUAL) -> None:
        self.root = root
        self._patience = patience
        self._store = _open(root.bucket, settings, patience)

    def address(self, key: str) -> ObjectAddress:
        """Where a key is, from the bucket on."""
        return ObjectAddress(self.root.bucket, "/".join(part for part in (self.root.key, key) if part))

    def read(self, key: str) -> tuple[bytes, str] | None:
        """A small object and its etag; None when there is none."""
        try:
            result = obstore.get(self._store, self._full(key))
            return bytes(result.bytes()), result.meta["e_tag"] or ""
        except _FAILURES as error:
            if is_missing(error):
                return None
            raise self._explain("read", key, error) from error

    def write(self, key: str, data: bytes) -> None:
        """Put a small object, whatever is there."""
        try:
            obstore.put(self._store, self._full(key), data, use_multipart=False)
        except _FAILURES as error:
            raise self._explain("write", key, error) from error

    def write_if(self, key: str, data: bytes, *, etag: str | None) -> bool:
        """Put a small object only if nothing is there (etag None) or just that version; False when it is not so.

        Also False for a write that came through although its answer was lost: read it to know.
        """
        mode: Any = "create" if etag is None else {"e_tag": etag}
        try:
            obstore.put(self._store, self._full(key), data, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        except _FAILURES as error:
            raise self._explain("write", key, error) from error
        return True

    def find(self, key: str) -> ObjectFacts | None:
        """An object's facts; None when it, or the bucket, is not there."""
        try:
            return _read_facts(obstore.head(self._store, self._full(key)))
        except _FAILURES as error:
            if is_missing(error):
                return None
            raise self._explain("look at", key, error) from error

    def require(self, key: str) -> ObjectFacts:
        """An object's facts; raises SpecError that says whether the object or the bucket is missing."""
        found = self.find(key)
        if found is None:
            # A HEAD has no body that would tell; listing does.
            next(self.list(key), None)
            raise SpecError("there is no such object", where=str(self.address(key)), fix="Correct the key.")
        return found

    def list(self, prefix: str) -> Iterator[ObjectFacts]:
        """Everything below a prefix (whole parts of the key), in the order of the keys."""
        try:
            for page in obstore.list(self._store, self._full(prefix)):
                yield from (_read_facts(each) for each in page)
        except _FAILURES as error:
            raise self._explain("list", prefix, error) from error

    def delete(self, keys: Collection[str]) -> None:
        """Remove objects; those that are gone count as removed."""
        try:
            if keys:
                obstore.delete(self._store, [self._full(key) for key in keys])
        except _FAILURES as error:
            if not is_missing(error):
                raise self._explain("delete", next(iter(keys)), error) from error

    def upload(self, path: Path, key: str, *, before_end: Callable[[], None] = lambda: None) -> ObjectFacts:
        """Stream a file up in parts, each with its checksum; a started upload that the server lost is begun anew.

        before_end runs just before the object appears; what it raises leaves the old object in place.
        """
        for left in reversed(range(_WHOLE_TRIES)):
            source = _Source(path, before_end)
            try:
                self._put_stream(source, key)
                break
            except _FAILURES as error:
                if source.refusal is not None:
                    raise source.refusal from error
                if left == 0 or not is_passing(error, is_multipart=True):
                    raise self._explain("write", key, error) from error
        return self._confirm(key, source.size)

    def copy(self, source: str, target: str) -> ObjectFacts:
        """Copy an object within the service in one request, for up to 5 GB; what is at target is replaced."""
        try:
            obstore.copy(self._store, self._full(source), self._full(target))
        except _FAILURES as error:
            raise self._explain("copy", source, error) from error
        return self.require(target)

    def download(self, facts: ObjectFacts, path: Path) -> None:
        """Stream an object to a file, going on where the file ends; raises SpecError when the object has changed.

        facts.key counts from the bucket. The file has the object's size, and is on the disk, when this returns.
        """
        with path.open("ab") as file:
            if file.tell() > facts.size:
                file.truncate(0)
            while (start := file.seek(0, os.SEEK_END)) < facts.size:
                file.write(self._read_range(facts, start, min(start + CHUNK_BYTES, facts.size)))
                file.flush()
            os.fsync(file.fileno())

    def read_whole(self, facts: ObjectFacts) -> Iterator[memoryview]:
        """An object's bytes, a chunk at a time; raises SpecError when it has changed since it was found."""
        for start in range(0, facts.size, CHUNK_BYTES):
            yield self._read_range(facts, start, min(start + CHUNK_BYTES, facts.size))

    def _read_range(self, facts: ObjectFacts, start: int, end: int) -> memoryview:
        where = str(ObjectAddress(self.root.bucket, facts.key))
        options: Any = {"range": (start, end), "if_match": facts.etag or None}
        for left in reversed(range(_WHOLE_TRIES)):
            try:
                data = memoryview(obstore.get(self._store, facts.key, options=options).bytes())
            except PreconditionError as error:
                raise SpecError(
                    "it has changed meanwhile", where=where, fix="Start anew with what it is now."
                ) from error
            except _FAILURES as error:
                if left == 0 or not is_passing(error):
                    raise explain_failure("read", where, error) from error
                continue
            if len(data) == end - start:
                return data
        raise CloudError(f"it ends after {start + len(data):,} of {facts.size:,} bytes", where=where, operation="read")

    def _put_stream(self, source: _Source, key: str) -> None:
        size = max(CHUNK_BYTES, -(-source.size // _MOST_CHUNKS))
        obstore.put(
            self._store,
            self._full(key),
            source.chunks(size),
            use_multipart=True,
            chunk_size=size,
            max_concurrency=_AT_ONCE,
        )

    def _confirm(self, key: str, size: int) -> ObjectFacts:
        facts = self.require(key)
        if facts.size != size:
            raise CloudError(
                f"{size:,} bytes were written, and {facts.size:,} are there",
                where=str(self.address(key)),
                operation="write",
            )
        return facts

    def _full(self, key: str) -> str:
        return self.address(key).key

    def _explain(self, what: str, key: str, error: BaseException) -> LeaseholdError:
        return explain_failure(what, str(self.address(key)), error)


class _Source:
    """A file as the chunks of an upload; `refusal` is what the check before the end has raised."""

    def __init__(self, path: Path, before_end: Callable[[], None]) -> None:
        self.size = path.stat().st_size
        self.refusal: Exception | None = None
        self._path = path
        self._before_end = before_end

    def chunks(self, size: int) -> Iterator[bytes]:
        left = self.size
        with self._path.open("rb") as file:
            while left > 0 and (data := file.read(min(size, left))):
                left -= len(data)
                if left == 0:
                    self._check()
                yield data
        if self.size == 0:
            self._check()

    def _check(self) -> None:
        """In another thread: this one drives the library's runtime, which a check that asks the store would start anew."""
        try:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(self._before_end).result()
        except Exception as error:
            self.refusal = error
            raise


def _open(bucket: str, settings: ObjectSettings, patience: Patience) -> S3Store:
    _unset_empty_variables()
    config: dict[str, Any] = {"region": settings.region, "checksum_algorithm": "SHA256"}
    if settings.endpoint:
        config["endpoint"] = settings.endpoint
    if settings.key_id:
        config |= {"access_key_id": settings.key_id, "secret_access_key": settings.secret}
        config |= {"session_token": settings.session_token} if settings.session_token else {}
    client: dict[str, Any] = {
        "timeout": datetime.timedelta(seconds=patience.request_s),
        "connect_timeout": datetime.timedelta(seconds=patience.connect_s),
        "allow_http": settings.endpoint.startswith("http://"),
        "user_agent": "leasehold",
    }
    if settings.ca_file:
        client["root_certificate"] = _read_authorities(settings.ca_file)
    retry: Any = {
        "max_retries": patience.tries - 1,
        "retry_timeout": datetime.timedelta(seconds=patience.total_s),
        "backoff": {"max_backoff": datetime.timedelta(seconds=patience.longest_pause_s)},
    }
    options: Any = {"config": config, "client_options": client, "retry_config": retry}
    return S3Store(bucket, **options)


def _unset_empty_variables() -> None:
    """A workflow's variable that is not set comes as an empty one. The library reads the environment by itself, over what it
    is given, and takes an empty address for one."""
    for name in [name for name, value in os.environ.items() if name.startswith("AWS_") and not value]:
        os.environ.pop(name, None)


def _read_authorities(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SpecError(f"cannot read it: {error.strerror}", where=f"AWS_CA_BUNDLE={path}") from error


def _read_facts(meta: Any) -> ObjectFacts:
    return ObjectFacts(key=meta["path"], size=meta["size"], etag=meta["e_tag"] or "")
