"""Lambda's error answers: code, status, message, suggestion. Raised by the routes."""

from __future__ import annotations

from providers.emulators.call import Answer, Refused

_TABLE: dict[str, tuple[int, str, str]] = {
    "global/invalid-api-key": (
        401,
        "API key was invalid, expired, or deleted.",
        "Check your API key or create a new one, then try again.",
    ),
    "global/account-inactive": (
        403,
        "Your account is inactive.",
        "Make sure you have verified your email address and have a valid payment method.",
    ),
    "global/not-found": (404, "The requested resource was not found.", ""),
    "global/object-does-not-exist": (404, "Specified instance does not exist.", ""),
    "global/invalid-parameters": (400, "Invalid request data.", ""),
    "global/quota-exceeded": (400, "Quota exceeded.", "Contact Support to increase your quota."),
    "global/duplicate": (400, "The name is taken.", ""),
    "global/conflict": (409, "The request conflicts with the current state of the resource.", ""),
    "global/internal-error": (500, "An internal server error occurred.", "Try again later."),
    "global/rate-limited": (429, "Too many requests.", "Wait, then try again."),
    "instance-operations/launch/insufficient-capacity": (
        400,
        "Not enough capacity to fulfill launch request.",
        "Choose an instance type with more availability, or try again later.",
    ),
    "instance-operations/launch/file-system-in-wrong-region": (400, "The file system is in another region.", ""),
    "filesystems/filesystem-in-use": (400, "The file system is in use.", ""),
    "provider/internal-unavailable": (503, "Provider unavailable", "Try again shortly"),
}


def fail(code: str, message: str = "", *, status: int = 0, suggestion: str = "", fault: str = "") -> Refused:
    """A refusal in Lambda's envelope; what is not given comes from the table."""
    its_status, its_message, its_suggestion = _TABLE[code]
    error = {"code": code, "message": message or its_message}
    if suggestion or its_suggestion:
        error["suggestion"] = suggestion or its_suggestion
    answer = Answer(status=status or its_status, body={"error": error})
    return Refused(answer, fault=fault, detail=f"{code}: {error['message']}")


def succeed(data: object) -> Answer:
    return Answer(status=200, body={"data": data})
