"""Opens what a job names in S3, with the keys of this process's environment. Called by planning, start and collecting."""

from __future__ import annotations

import os

from runtime.objects.object_settings import ObjectAddress, load_object_settings, parse_address
from runtime.objects.object_store import ObjectStore
from runtime.objects.output_prefix import OutputPrefix


def open_prefix(address: str) -> OutputPrefix:
    """A place for results; raises SpecError or CredentialError when it cannot even be tried."""
    return OutputPrefix(ObjectStore(parse_address(address), load_object_settings(os.environ)))


def open_bucket(address: ObjectAddress) -> ObjectStore:
    """The bucket of an object; keys count from it."""
    return ObjectStore(ObjectAddress(address.bucket, ""), load_object_settings(os.environ))
