"""`import sdekit` is clean: it needs torch and numpy only, changes no global state, starts nothing, writes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# Run in a fresh interpreter with the package's name as argument; prints what importing it did, as JSON.
PROBE = """
import json, logging, os, random, signal, sys, threading, warnings
import numpy, torch

def state():
    return {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "grad mode": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads of torch": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "torch's generator": torch.get_rng_state().tolist(),
        "numpy's generator": [str(part) for part in numpy.random.get_state()],
        "random's generator": hash(random.getstate()),
        "numpy's errors": numpy.geterr(),
        "print options": [repr(numpy.get_printoptions()), repr(vars(torch._tensor_str.PRINT_OPTS))],
        "warning filters": [repr(entry) for entry in warnings.filters],
        "environment": dict(os.environ),
        "search path": list(sys.path),
        "signals": [repr(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "logging": [logging.root.level, len(logging.root.handlers)],
        "hooks": [repr(sys.excepthook), repr(sys.displayhook)],
        "live threads": sorted(thread.name for thread in threading.enumerate()),
    }

events = []
watching = False

def audit(event, args):
    if not watching:
        return
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        events.append("file written")
    elif event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system"):
        events.append(event)

start = threading.Thread.start

def watched_start(thread):
    if watching:
        events.append("thread started")
    start(thread)

sys.addaudithook(audit)
threading.Thread.start = watched_start
before, modules = state(), set(sys.modules)
watching = True
__import__(sys.argv[1])
watching = False
after, new = state(), set(sys.modules) - modules
packages = {name.partition(".")[0] for name in new} - sys.stdlib_module_names
print(json.dumps({
    "packages": sorted(packages),
    "compiler": any(name.startswith(("torch._dynamo", "torch._inductor")) for name in new),
    "changed": sorted(key for key in before if before[key] != after[key]),
    "events": sorted(set(events)),
}))
"""

# Does each forbidden thing once.
DIRTY = """
import fractions, logging, os, random, signal, socket, subprocess, sys, threading, time, warnings
import numpy, torch
import dirty_dependency
import torch._dynamo
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
torch.set_grad_enabled(False)
torch.use_deterministic_algorithms(True)
torch.set_num_threads(torch.get_num_threads() + 1)
with torch.device("cpu"):
    torch.rand(())
numpy.random.rand()
random.random()
numpy.seterr(divide="raise")
numpy.set_printoptions(precision=3)
warnings.simplefilter("ignore")
os.environ["DIRTY"] = "1"
sys.path.append("dirty")
signal.signal(signal.SIGINT, lambda *_: None)
logging.basicConfig()
sys.excepthook = lambda *args: None
threading.Thread(target=time.sleep, args=(30,), daemon=True, name="dirty").start()
open("dirty.txt", "w").close()
subprocess.run([sys.executable, "-c", ""])
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError:
    pass
"""


def _python(*arguments: str, folder: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def _probe(package: str, folder: Path, path: str = "") -> dict[str, object]:
    done = _python("-c", PROBE, package, folder=folder, path=path)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_import_is_clean(tmp_path: Path, root: Path) -> None:
    report = _probe("sdekit", tmp_path, str(root))
    assert report == {"packages": ["sdekit"], "compiler": False, "changed": [], "events": []}


def test_unclean_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "dirty.py").write_text(DIRTY)
    (tmp_path / "dirty_dependency.py").write_text("")
    report = _probe("dirty", tmp_path, str(tmp_path))
    assert {"dirty", "dirty_dependency"} <= set(report["packages"])
    assert report["compiler"] is True
    assert report["changed"] == sorted(
        [
            *("default dtype", "default device", "grad mode", "deterministic", "threads of torch", "torch's generator"),
            *("numpy's generator", "random's generator", "numpy's errors", "print options", "warning filters"),
            *("environment", "search path", "signals", "logging", "hooks", "live threads"),
        ]
    )
    assert {"file written", "socket.connect", "subprocess.Popen", "thread started"} <= set(report["events"])
