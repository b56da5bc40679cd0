import time, sys, json, os, shutil
from pathlib import Path
from tests.journeys import emulated_clouds as ec
from tests.journeys.workshop import Workshop
SPEED = float(os.environ["SP"]); CLOUD = os.environ["CL"]; NS = json.loads(os.environ["NS"]); HANG = os.environ.get("HANG")
def measure(n, hang=False):
    ec.SPEED = SPEED
    f = Path("/tmp/cl/m"); shutil.rmtree(f, ignore_errors=True); f.mkdir()
    w = Workshop(f); c = ec.EmulatedClouds(w); w.environment["LEASEHOLD_EMULATOR_PACE"] = str(SPEED)
    try:
        c.open(CLOUD); e = c.running[CLOUD]
        if CLOUD == "runpod": e.set_fault("ssh_after_s", 60)
        else: e.set_fault("active_after_s", 180); e.set_fault("ip_after_s", 25); e.set_fault("ssh_after_active_s", 0)
        if hang: e.set_fault("ssh_never" if CLOUD == "runpod" else "boot_stuck", match=f"-{n-1}x")
        cand = {**ec.ON_RUNPOD, "regions": ["US-KS-2"]} if CLOUD == "runpod" else {**ec.ON_LAMBDA, "regions": ["us-west-1"]}
        job = c.write_job("m", [cand], replicas=n, lines=3000, max_tokens=400)
        p = w.start("run", str(job), "--run", "m", "--yes")
        want = n - bool(hang)
        d = w.run_dir("m")
        w.wait_for("joins", lambda: len([x for x in (d/"machines").glob("*.json")]) >= want if d.exists() else False, 240)
        recs = [json.loads(x.read_text()) for x in (d/"machines").glob("*.json")]
        evs = [json.loads(l) for l in w.events("m").splitlines()]
        t0 = min(r["created_at"] for r in recs)
        ssh = [e["data"]["seconds"] for e in evs if e["event"] == "ssh_answers"]
        print(CLOUD, "n", n, "hang", hang, "speed", SPEED, "first create->last join %.1f" % (max(r["joined_at"] for r in recs) - t0),
          "creates %.1f" % (max(r["created_at"] for r in recs)-t0), "ssh secs", sorted(ssh), "own create->join", [round(r["joined_at"]-r["created_at"],1) for r in sorted(recs, key=lambda r: r["index"])], flush=True)
        x = w.inv("cancel", "m"); print("cancel", x.returncode, p.wait(60), w.status("m")["released"], [m.status for m in c.machines()], flush=True)
    finally:
        c.close()
def test_it():
    for n in NS: measure(n)
    if HANG: measure(NS[-1]+1, True)
