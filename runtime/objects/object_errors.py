"""What the object library raises, in our words: which object, what S3 said, what to do. Used by object_store. Pure."""

from __future__ import annotations

import re

from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

from schemas.errors import CloudError, CredentialError, LeaseholdError, SpecError

_CODE = re.compile(r"<Code>(\w+)</Code>")
_STATUS = re.compile(r"status code: (\d{3})|\bstatus: (\d{3})")
_TRIED = re.compile(r"after (\d+) retries")
_KEY_TROUBLE = {
    "AccessDenied": "access is denied",
    "InvalidAccessKeyId": "the key id is not known there",
    "SignatureDoesNotMatch": "the secret key does not fit the key id",
    "ExpiredToken": "the session has expired",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "this computer's clock is wrong",
}
_OTHER_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
_LOST_UPLOAD = ("NoSuchUpload", "InvalidPart", "InvalidPartOrder")
_FIRST_BYTES = 240


def is_missing(error: BaseException) -> bool:
    """Whether the object is not there (a missing bucket is another matter)."""
    return isinstance(error, FileNotFoundError) and find_code(error) in ("", "NoSuchKey", "NotFound")


def is_passing(error: BaseException, *, is_multipart: bool = False) -> bool:
    """Whether the same once more may work: what the server or the network did, not what we asked for."""
    code, status = find_code(error), _find_status(error)
    if is_multipart and (code in _LOST_UPLOAD or (status == 404 and code != "NoSuchBucket")):
        return True
    if isinstance(error, FileNotFoundError | PermissionDeniedError | UnauthenticatedError):
        return False
    return status == 0 or status >= 500 or status in (408, 409, 429)


def explain_failure(what: str, where: str, error: BaseException) -> LeaseholdError:
    """The error of our tree: 3 for keys and rights, 2 for what the job names wrongly, 4 for everything else."""
    code, status = find_code(error), _find_status(error)
    refused = isinstance(error, PermissionDeniedError | UnauthenticatedError) or (not code and status in (401, 403))
    if code in _KEY_TROUBLE or refused:
        said = _KEY_TROUBLE.get(code, "access is denied")
        fix = "See AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN; docs/s3.md lists the rights needed."
        return CredentialError(f"cannot {what} it: {said}", where=where, fix=fix)
    if code == "NoSuchBucket":
        return SpecError("there is no such bucket", where=where, fix="Correct the bucket's name, or make it first.")
    if code in _OTHER_REGION or "must be addressed using the specified endpoint" in str(error):
        return SpecError("the bucket is in another region", where=where, fix="Set AWS_REGION to the bucket's own.")
    if isinstance(error, FileNotFoundError):
        return SpecError("there is no such object", where=where, fix="Correct the key.")
    if code == "NotImplemented" or status == 501:
        fix = "Use a service that knows conditional writes (If-Match, If-None-Match)."
        return SpecError(f"the service cannot {what} it in the way that is needed", where=where, fix=fix)
    return _explain_service(what, where, error, code, status)


def find_code(error: BaseException) -> str:
    """S3's own word for it, "" when there is none."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def _explain_service(what: str, where: str, error: BaseException, code: str, status: int) -> CloudError:
    text = str(error).split("Debug source:")[0].strip()
    tried = _TRIED.search(text)
    said = code or (f"status {status}" if status else text[:_FIRST_BYTES])
    tries = f", after {int(tried[1]) + 1} tries" if tried else ""
    return CloudError(
        f"cannot {what} it: {said}{tries}",
        where=where,
        fix="See whether the service works and can be reached, then do it again.",
        operation=what,
        status=status,
        detail=text[:2000],
    )


def _find_status(error: BaseException) -> int:
    found = _STATUS.search(str(error))
    return int(found[1] or found[2]) if found else 0
