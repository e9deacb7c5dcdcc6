# The client of a Dask scheduler: daskclient.py URL runs the tasks that it reads as lines of JSON, daskclient.py URL wait N waits for N workers.
import json, subprocess, sys
from distributed import Client


def task(t):
    if not t.get("Argv"):
        return 0
    with open(t["In"] if t.get("In") else "/dev/null") as stdin, open(t["Out"], "w") as out:
        return subprocess.run(t["Argv"], stdin=stdin, stdout=out).returncode


with Client(sys.argv[1], timeout=30) as c:
    if len(sys.argv) > 2:
        c.wait_for_workers(int(sys.argv[3]), timeout=30)
        sys.exit(0)
    tasks = [json.loads(line) for line in sys.stdin]
    sys.exit(max(c.gather(c.map(task, tasks, pure=False))))
