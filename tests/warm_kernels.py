"""Notebook kernels that start in a moment: forked from one process that has imported the libraries, and nothing of ours.

A kernel spends five seconds of a processor on importing torch, transformers and TRL, and the tests start dozens of kernels.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIBRARIES = ("torch", "torchvision.transforms", "transformers.modeling_utils", "transformers.processing_utils", "peft",
             "datasets", "trl.trainer.sft_config", "accelerate", "pandas", "matplotlib", "scipy.stats", "faiss", "bm25s", "av",
             "pydantic", "ipykernel.kernelapp", "ipykernel.ipkernel", "matplotlib_inline.backend_inline")
NAME = "warm" if sys.platform == "linux" else "python3"  # elsewhere processes that have threads must not fork


def serve(address: str) -> None:
    """Import the libraries, then fork a kernel for everyone who asks, until this process is ended."""
    for name in LIBRARIES:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the kernels
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{address}.new")
        listening.listen()
        os.rename(f"{address}.new", address)  # it is there when it answers
        while True:
            asking, _ = listening.accept()
            words, streams, *_ = socket.recv_fds(asking, 1 << 20, 3)
            if not os.fork():
                listening.close()
                become_kernel(asking, json.loads(words), streams)
            asking.close()
            for stream in streams:
                os.close(stream)


def become_kernel(asking: socket.socket, asked: dict, streams: list[int]) -> None:
    """Be the kernel that `asked` describes: its folder, environment and connection file; end when who asked for it ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"] | {"JPY_PARENT_PID": str(os.getppid())})
    threading.Thread(target=lambda: (asking.recv(1), os._exit(1)), daemon=True).start()
    sys.argv = ["ipykernel_launcher", "-f", asked["connection"]]
    sys.path[0] = asked["folder"]
    from ipykernel.kernelapp import launch_new_instance
    launch_new_instance()
    sys.stdout.flush()
    os._exit(0)


def ask(address: str, connection: str) -> None:
    """Ask for a kernel, and stay until it has ended; who stops it tells the kernel itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(address)
        words = {"folder": os.getcwd(), "environment": dict(os.environ), "connection": connection}
        socket.send_fds(asking, [json.dumps(words).encode()], [0, 1, 2])
        asking.recv(1)


@contextmanager
def warm_kernels(folder: Path) -> Iterator[str]:
    """Name of a kernel that papermill finds while this lasts."""
    if NAME != "warm":
        yield NAME
        return
    short = tempfile.TemporaryDirectory(prefix="kernels")  # a socket's path has a hundred letters at most
    address = str(Path(short.name) / "socket")
    words = [sys.executable, str(Path(__file__).resolve())]
    spec = folder / "kernels" / NAME / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [*words, "ask", address, "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": NAME, "language": "python"}))
    before = os.environ.get("JUPYTER_PATH")
    environment = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # as a kernel sets it
    server = subprocess.Popen([*words, "serve", address], env=environment)
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [str(folder), before]))
    try:
        while not os.path.exists(address):
            assert server.poll() is None, "the process that kernels fork from has ended"
            time.sleep(0.05)
        yield NAME
    finally:
        server.kill()
        server.wait()
        short.cleanup()
        os.environ.pop("JUPYTER_PATH")
        if before is not None:
            os.environ["JUPYTER_PATH"] = before


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
