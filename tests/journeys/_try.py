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
        c.runpod, c.lambda_cloud
        show(w, "doctor"); show(w, "doctor", RUNPOD_API_KEY="wrong", LAMBDA_CLOUD_API_KEY="bad")
        show(w, "doctor", RUNPOD_BASE_URL=c.runpod.base_url.replace("/v2", "/v1"), LAMBDA_CLOUD_API_KEY="")
        show(w, "offers", "--gpu", "H100")
        show(w, "offers", "--gpu", "H100", "--json", "--count", "8")
        show(w, "offers", "--gpu", "H1OOO"); show(w, "offers", "--cloud", "lambda", "--gpu", "RTX-4090")
        show(w, "offers", "--gpu", "A10", RUNPOD_API_KEY="", LAMBDA_CLOUD_API_KEY="bad")
        for name, cand in {
            "region": [{**ON_RUNPOD, "regions": ["US-KS-9"]}], "lregion": [{**ON_LAMBDA, "regions": ["us-west-9"]}],
            "gpu": [{"cloud":"runpod","gpu":"H1000"}], "gpul": [{"cloud":"lambda","gpu":"RTX-4090"}],
            "count": [{**ON_RUNPOD, "count": 64}], "countl": [{**ON_LAMBDA, "count": 16}], "tier": [{**ON_RUNPOD, "tier": "gold"}],
            "tier2": [{**ON_LAMBDA, "tier": "secure"}], "tier3": [{"cloud":"runpod","gpu":"B200", "tier": "community"}],
            "price": [{**ON_RUNPOD, "max_usd_per_hour": 1}, {**ON_LAMBDA, "max_usd_per_hour": 0.5}]}.items():
            show(w, "run", str(c.write_job(name, cand)), "--yes")
        j = str(c.write_job("key", [ON_RUNPOD])); show(w, "run", j, "--yes", RUNPOD_API_KEY="rpa_no"); show(w, "run", j, "--yes", RUNPOD_API_KEY="")
        j = str(c.write_job("keyl", [ON_LAMBDA])); show(w, "run", j, "--yes", LAMBDA_CLOUD_API_KEY="rpa_no"); show(w, "run", j, "--yes", LAMBDA_CLOUD_API_KEY="")
    finally:
        c.close()
