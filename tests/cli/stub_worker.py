"""A stand-in for `train.py` as a worker: no TensorFlow. Usage: stub_worker.py SCENARIO [flags].

A scenario is Python that knows `index` and `num_workers` of the worker, `is_restart`, `run_dir`,
and `meet`: it waits until all workers have come to it.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

config = json.loads(os.environ["TF_CONFIG"])
index, num_workers = config["task"]["index"], len(config["cluster"]["worker"])
flags = dict(zip(sys.argv[2:], sys.argv[3:], strict=False))
run_dir, is_restart = Path(flags["--run_dir"]), "--resume" in flags


def meet(place="start"):
    met = run_dir / f"{place}-{'again' if is_restart else 'first'}"
    met.mkdir(exist_ok=True)
    (met / str(index)).touch()
    while len(list(met.iterdir())) < num_workers:
        time.sleep(0.01)


def stop(number, frame):
    (run_dir / f"signals-{index}").open("a").write(signal.Signals(number).name + "\n")
    if "deaf" not in sys.argv[1]:
        sys.exit(128 + number)


ignored = [n for n in (signal.SIGINT,) if signal.getsignal(n) is signal.SIG_IGN]
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print(f"worker {index} of {num_workers}", flush=True)
exec(sys.argv[1])
