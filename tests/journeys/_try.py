import time, sys, json
from pathlib import Path
from tests.journeys.workshop import Workshop
from tests.journeys.emulated_clouds import *
def show(w, *a, **k):
    t = time.time(); d = w.inv(*a, **k)
    print("$", *a, k, "->", d.returncode, round(time.time()-t,2)); print(d.stdout); print(d.stderr)
def test_it():
    import tempfile, shutil
    f = Path("/tmp/cl/w"); shutil.rmtree(f, ignore_errors=True); f.mkdir()
    w = Workshop(f); c = EmulatedClouds(w)
    try:
        c.open("runpod", "lambda")
        c.running["runpod"].set_fault("apt_get_fails")
        c.running["runpod"].clear_faults()
        show(w, "run", str(c.write_job("lam", [ON_LAMBDA], replicas=2)), "--yes", "--run", "lam")
        print((w.run_dir("lam")/"dispatch.log").read_text())
        print((w.run_dir("lam")/"stats.jsonl").read_text())
        show(w, "run", str(c.write_job("cap", [ON_RUNPOD, ON_LAMBDA])), "--yes", "--run", "cap")
        print((w.run_dir("cap")/"stats.jsonl").read_text())
    finally:
        c.close()
