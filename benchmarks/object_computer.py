"""One computer of a run whose input and results are in S3: `python -m benchmarks.object_computer PREFIX FOLDER RUN ENGINE`.

Takes the prefix over from whoever owned it, does the rest, and puts the whole files in place. Started, and killed, by gate_objects.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.workload import ENDPOINT
from runtime.dispatcher.dispatcher import run_dispatcher
from runtime.dispatcher.manifest import DispatchOptions, Manifest
from runtime.objects.object_settings import ObjectAddress, load_object_settings, parse_address
from runtime.objects.object_store import ObjectFacts, ObjectStore
from runtime.objects.output_prefix import InputObject, OutputPrefix, save_claim
from runtime.objects.prefix_results import deliver_files
from runtime.resuming.adoption import adopt_results
from runtime.resuming.takeover import claim_prefix, rebuild_run

MODEL = "tiny"


def main(arguments: list[str]) -> int:
    address, folder, run, engine = arguments
    settings = load_object_settings(os.environ)
    prefix = OutputPrefix(ObjectStore(parse_address(address), settings))
    root = Path(folder)
    old, new = root / "old", root / "run"
    for each in (root, old, new):
        each.mkdir()
    before = prefix.load_owner()
    bucket = ObjectStore(ObjectAddress(prefix.address.bucket, ""), settings)
    if before is None:
        facts = bucket.require("input.jsonl")
        source = InputObject(address=f"s3://{prefix.address.bucket}/{facts.key}", size=facts.size, etag=facts.etag)
    else:
        source = before[0].input
        facts = ObjectFacts(key=parse_address(source.address).key, size=source.size, etag=source.etag)
    path = root / "input.jsonl"
    bucket.download(facts, path)
    if before is not None:
        earlier = rebuild_run(prefix, before[0], old, input_path=path, endpoint=ENDPOINT, model=MODEL, line_limit=0)
        adopt_results(earlier, new, run=run, input_path=path, endpoint=ENDPOINT, model=MODEL, with_failures=True)
    claim = claim_prefix(prefix, before, run=run, source=source, plan=b"{}", prepared=new)
    save_claim(new, claim)
    code = run_dispatcher(_make_manifest(run, path, new, engine))
    if code == 0:
        deliver_files(prefix, claim.owner, new / "output.jsonl", new / "error.jsonl")
    return code


def _make_manifest(run: str, source: Path, folder: Path, engine: str) -> Manifest:
    return Manifest(
        run=run,
        input=str(source),
        output_dir=str(folder),
        endpoint=ENDPOINT,
        model=MODEL,
        base_urls=(engine,),
        options=DispatchOptions(max_concurrency=64),
        seal=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
