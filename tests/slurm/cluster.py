"""A real Slurm of one machine for tests: Debian's daemons on the loopback address, their files in one folder.

    python tests/slurm/cluster.py /tmp/cluster      # starts it, and stops it when Enter is pressed

Only `/etc/slurm/slurm.conf` lies elsewhere, because commands inside a job look for it there; another cluster's is never touched.
Beside the machine's node of two cores stands `a100`, a node that is down: jobs for it wait, and show what they ask for.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from expstar_utils.jobs import end_with_parent

CONFIG = Path("/etc/slurm/slurm.conf")
OURS = "# A test's cluster of one machine; may be removed when no test runs.\n"
PROGRAMS = {"slurmctld": "slurmctld", "slurmd": "slurmd", "squeue": "slurm-client", "munged": "munge"}  # program -> package
CORES = 2
SEARCHED = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # where daemons are

SETTINGS = """{ours}ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=300
MinJobAge=300
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=16384
NodeName=a100 NodeAddr=127.0.0.1 Port={other_port} CPUs=64 RealMemory=524288 Gres=gpu:a100:4 State=DOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE
PartitionName=a100 Nodes=a100 MaxTime=INFINITE
"""


def missing() -> str:
    """What this machine lacks for the cluster, as a sentence; "" where it has everything."""
    if lacking := sorted({package for program, package in PROGRAMS.items() if not shutil.which(program, path=SEARCHED)}):
        return f"Slurm is not whole here: install Debian's {' '.join(lacking)} slurm-wlm-basic-plugins"
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        return "snakemake's plugin for Slurm is missing: pip install -e '.[cluster]'"
    if os.geteuid() != 0:
        return f"only root may write {CONFIG}, where commands inside a Slurm job look for it"
    if CONFIG.exists() and not CONFIG.read_text(encoding="utf8").startswith(OURS):
        return f"{CONFIG} belongs to another cluster, which the test must not touch"
    return ""


class Cluster:
    """The daemons; a context. folder: for their files, short enough for a socket's path (about 100 characters)."""

    def __init__(self, folder: Path):
        self.folder, self.host = folder, platform.node().split(".")[0]
        self.daemons: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Cluster:
        self.lock = open(CONFIG.with_name(".tests.lock"), "w")  # a second test waits for its turn
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        try:
            self._configure()
            self.start_munge()
            self.start("slurmctld")
            self.start("slurmd")
            wait_for(lambda: "idle" in said("sinfo", "--noheader", "--partition=main", "--format=%t"), "the node never came up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if "slurmd" in self.daemons:
            if "slurmctld" not in self.daemons:  # a test failed while it was gone; jobs are still to be ended
                self.start("slurmctld")
            said("scancel", "--user=root")
            with suppress(TimeoutError):
                wait_for(lambda: not self.jobs(), "jobs stay", 30)
        for name in reversed(list(self.daemons)):
            self.stop(name)
        CONFIG.unlink(missing_ok=True)
        self.lock.close()

    def _configure(self) -> None:
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        ports = dict(zip(("controller_port", "node_port", "other_port"), free_ports(3)))
        CONFIG.write_text(SETTINGS.format(ours=OURS, host=self.host, folder=self.folder, cores=CORES, **ports), encoding="utf8")

    def start_munge(self) -> None:
        """Start what signs the daemons' messages, with a key of its own."""
        places = {name: self.folder / f"munge.{name.split('-')[0]}" for name in ("key-file", "socket", "pid-file", "seed-file")}
        self._run("munged", "munged", "--foreground", "--force", *[f"--{name}={path}" for name, path in places.items()])
        wait_for((self.folder / "munge.socket").exists, "munged opened no socket")

    def start(self, name: str) -> None:
        """Start `slurmctld` or `slurmd`; what it knew of jobs it reads from its folder."""
        self._run(name, name, "-D", *(["-N", self.host] if name == "slurmd" else []))
        if name == "slurmctld":
            wait_for(lambda: "UP" in said("scontrol", "ping"), "the controller does not answer")

    def _run(self, name: str, *words: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self.daemons[name] = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                                                  env=os.environ | {"PATH": SEARCHED},
                                                  preexec_fn=partial(end_with_parent, os.getpid()))

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a daemon by a signal to its own process."""
        process = self.daemons.pop(name)
        process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def jobs(self, state: str = "all") -> list[str]:
        """Numbers of the jobs that wait, run or are just ending."""
        active = "pending,configuring,running,completing,suspended" if state == "all" else state
        return said("squeue", "--noheader", f"--states={active}", "--format=%i").split()

    def job_of(self, run: str) -> str:
        """Number of the youngest job of a run; its comment, by snakemake, has the run's path with `_` for `/`."""
        lines = said("squeue", "--noheader", "--states=all", "--sort=-i", "--format=%i %k").splitlines()
        return next(line.split()[0] for line in lines if f"{run.replace('/', '_')}_" in line)


def said(*words: str) -> str:
    """What a command prints; "" where it fails."""
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it never did; says `what`.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} ({seconds:.0f} s)")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def main(argv: Sequence[str]) -> int:
    """Start a cluster in the folder that is named, until Enter."""
    if lacking := missing():
        print(lacking, file=sys.stderr)
        return 1
    with Cluster(Path(argv[0]).resolve()):
        input("Slurm runs; Enter stops it. ")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
