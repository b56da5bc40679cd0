"""The library's errors in our words: the class, what S3 said, what to do."""

from __future__ import annotations

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError

from runtime.objects.object_errors import explain_failure, is_missing, is_passing
from schemas.errors import CloudError, CredentialError, SpecError


def answer(status: int, code: str, retries: str = "") -> str:
    said = f"Server returned non-2xx status code: {status} X: <Error><Code>{code}</Code></Error>"
    return f"Error performing PUT https://x/b/k in 1ms{retries} - {said}"


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (GenericError(answer(400, "ExpiredToken")), CredentialError, "the session has expired"),
        (GenericError(answer(403, "RequestTimeTooSkewed")), CredentialError, "clock is wrong"),
        (PermissionDeniedError(answer(403, "AccessDenied")), CredentialError, "access is denied"),
        (PermissionDeniedError("403 Forbidden: "), CredentialError, "access is denied"),
        (GenericError("Server returned non-2xx status code: 403: "), CredentialError, "access is denied"),
        (FileNotFoundError(answer(404, "NoSuchBucket")), SpecError, "no such bucket"),
        (FileNotFoundError(answer(404, "NoSuchKey")), SpecError, "no such object"),
        (GenericError(answer(301, "PermanentRedirect")), SpecError, "another region"),
        (GenericError(answer(501, "NotImplemented")), SpecError, "in the way that is needed"),
        (
            GenericError(answer(503, "SlowDown", ", after 8 retries, max_retries: 8")),
            CloudError,
            "SlowDown, after 9 tries",
        ),
        (GenericError("connection refused\n\nDebug source:\nsecret stuff"), CloudError, "connection refused"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_each_failure_is_of_its_class_and_says_what_to_do(error: Exception, kind: type, words: str) -> None:
    explained = explain_failure("write", "s3://b/k", error)

    assert type(explained) is kind
    assert explained.where == "s3://b/k" and words in explained.what and explained.fix
    assert "Debug source" not in str(explained) and "secret stuff" not in str(explained)


def test_a_missing_bucket_is_not_a_missing_object() -> None:
    assert is_missing(FileNotFoundError(answer(404, "NoSuchKey")))
    assert is_missing(FileNotFoundError("404 Not Found: "))
    assert not is_missing(FileNotFoundError(answer(404, "NoSuchBucket")))
    assert not is_missing(GenericError(answer(404, "NoSuchKey")))


@pytest.mark.parametrize(
    ("error", "plain", "multipart"),
    [
        (GenericError(answer(503, "SlowDown")), True, True),
        (GenericError(answer(429, "TooMany")), True, True),
        (GenericError("connection reset"), True, True),
        (GenericError(answer(400, "BadDigest")), False, False),
        (PermissionDeniedError(answer(403, "AccessDenied")), False, False),
        (FileNotFoundError(answer(404, "NoSuchUpload")), False, True),
        (GenericError(answer(400, "InvalidPart")), False, True),
        (FileNotFoundError("Server returned non-2xx status code: 404 Not Found: "), False, True),
        (FileNotFoundError(answer(404, "NoSuchBucket")), False, False),
    ],
    ids=lambda value: None,
)
def test_only_what_may_pass_is_tried_again(error: Exception, plain: bool, multipart: bool) -> None:
    assert is_passing(error) is plain
    assert is_passing(error, is_multipart=True) is multipart
