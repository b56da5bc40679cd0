"""The one error of the set-up: what went wrong and what to do; `./inv` prints its text and ends with 1."""


class ToolchainError(Exception):
    """A sentence or two for the person who started `./inv`."""
