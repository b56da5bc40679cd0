"""Puts a text into the one comment that a pull request has from us, or edits it there. Run by a workflow, by any Python.

Reads GITHUB_TOKEN, GITHUB_REPOSITORY, GITHUB_API_URL, PULL_REQUEST and COMMENT; needs no package, and nothing of the pull
request's own code.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

MARKER = "<!-- leasehold plan -->"
_MOST = 65000  # GitHub takes 65,536 characters.
_PAGE = 100
_MOST_PAGES = 30
_TIMEOUT_S = 30


def put_comment(environ: Mapping[str, str]) -> str:
    """Edit the comment with our marker, else write one; returns its address."""
    repository, number = environ["GITHUB_REPOSITORY"], int(environ["PULL_REQUEST"])
    body = f"{MARKER}\n{environ['COMMENT']}"[:_MOST]
    mine = _find_comment(environ, f"/repos/{repository}/issues/{number}/comments")
    if mine is None:
        answer = _call(environ, "POST", f"/repos/{repository}/issues/{number}/comments", {"body": body})
    else:
        answer = _call(environ, "PATCH", f"/repos/{repository}/issues/comments/{mine}", {"body": body})
    return str(answer.get("html_url", ""))


def _find_comment(environ: Mapping[str, str], path: str) -> int | None:
    for page in range(1, _MOST_PAGES + 1):
        comments = _call(environ, "GET", f"{path}?per_page={_PAGE}&page={page}")
        for comment in comments:
            # Anybody may write our marker; only what the workflow's own account wrote is ours to edit.
            is_ours = (comment.get("user") or {}).get("type") == "Bot"  # null: the account is gone
            if is_ours and str(comment.get("body", "")).startswith(MARKER):
                return int(comment["id"])
        if len(comments) < _PAGE:
            return None
    return None


def _call(environ: Mapping[str, str], method: str, path: str, data: Any = None) -> Any:
    request = urllib.request.Request(
        environ.get("GITHUB_API_URL", "https://api.github.com") + path,
        method=method,
        data=None if data is None else json.dumps(data).encode(),
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {environ['GITHUB_TOKEN']}",
            "X-GitHub-Api-Version": "2022-11-28",
            "User-Agent": "leasehold",
        },
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        return json.load(answer)


def main(environ: Mapping[str, str]) -> int:
    try:
        print(put_comment(environ))  # noqa: T201
    except KeyError as error:
        sys.stderr.write(f"the variable {error.args[0]} is not set\n")
        return 2
    except urllib.error.HTTPError as error:
        with error:
            sys.stderr.write(f"GitHub answered {error.code}: {error.read(500).decode('utf-8', 'replace')}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"GitHub cannot be reached: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
