"""What this machine is: its device, precision, memory and name."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import sys
from functools import cache
from pathlib import Path

import torch

from nasbench.distributed import local_rank, processes
from nasbench.errors import BadInput
from nasbench.plugins import load
from nasbench.recipe import Recipe, check_device


def resolve_engine(recipe: Recipe) -> Recipe:
    """Replace every `auto` by what this machine's rule gives, so that the recipe says what was done."""
    engine, device = recipe.engine, recipe.device
    check_device(device)
    if engine.processes not in (1, processes()):
        raise BadInput(
            f"engine.processes = {engine.processes} needs as many processes; start them with "
            f"`torchrun --nproc-per-node {engine.processes} -m nasbench run ...`."
        )
    if engine.sync_batch_norm and processes() == 1:
        raise BadInput("engine.sync_batch_norm is for several processes (torchrun); leave it false in one.")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and processes() > 1:
        device = f"cuda:{local_rank()}"
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise BadInput(f"There is no CUDA device {device!r} here; use --device cpu or auto.")
    precision = engine.precision
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(device) else "float32"
    layout = engine.memory_format
    if layout == "auto":
        fast = precision == "bfloat16" or (device == "cpu" and platform.machine().lower() in ("x86_64", "amd64"))
        layout = "channels_last" if fast else "contiguous"
    static = engine.static
    if static == "auto":
        fits = device.startswith("cuda") and processes() == 1 and load("space", recipe.space).static
        static = "recorded" if fits else "off"
    changed = engine.model_copy(
        update={
            "precision": precision,
            "memory_format": layout,
            "static": static,
            "threads": engine.threads or asked_threads() or max(1, cores() // processes()),
            "processes": processes(),
        }
    )
    return recipe.model_copy(update={"engine": changed, "device": device})


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def asked_threads() -> int | None:
    """What OMP_NUM_THREADS asks for, as torch itself would take it."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdecimal() and int(text) else None


def gpus() -> int:
    """CUDA devices that this process may use."""
    return torch.cuda.device_count()


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware (AVX512-BF16 or AMX; Ampere or newer)."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device)[0] >= 8
    capability = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(capability and capability())


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed: otherwise each large activation is paged in anew, a third of the time
    of an evaluation on a CPU. Other C libraries do not have the call and are left alone."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, its largest value
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def repeat_results() -> None:
    """Ask torch for kernels on CUDA that give the same numbers each time, as far as it has them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would write every new tensor once more, so that reading what was never written shows.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def peak_memory(device: torch.device) -> int:
    """Bytes: on CUDA the allocator's maximum, else the most the process has held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def described(device: torch.device, threads: int | None) -> str:
    """What sums may round otherwise on than on another: the device, for a CPU its threads, and torch's version."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cpu_name()}, {threads} threads"
    return f"{name}, torch {torch.__version__}"


@cache
def cpu_name() -> str:
    """The processor as the system names it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
