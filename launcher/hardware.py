"""Which build of jax this machine's hardware calls for."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable

BUILDS = ("cpu", "cuda12", "cuda13", "tpu")
TPU_CHIPS = ("0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")


def has_tpu() -> bool:
    """Whether this is a TPU machine."""
    if os.environ.get("TPU_NAME") or os.path.exists("/dev/accel0"):
        return True
    # Newer TPU machines show the chips on PCI alone. Google's network cards have the same vendor: the device counts too.
    for device in pathlib.Path("/sys/bus/pci/devices").glob("*"):
        try:
            if (device / "vendor").read_text().strip() == "0x1ae0":
                if (device / "device").read_text().strip() in TPU_CHIPS:
                    return True
        except OSError:
            continue
    return False


def nvidia() -> tuple[int, int] | None:
    """Driver's major version and least compute capability in tenths of the NVIDIA GPUs; None where there is no driver.

    What can't be found out is taken to be what most machines have.
    """
    driver, capabilities = 525, []
    command = ["nvidia-smi", "--query-gpu=driver_version,compute_cap", "--format=csv,noheader"]
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        try:
            text = pathlib.Path("/proc/driver/nvidia/version").read_text()
        except OSError:
            return None
        found = re.search(r" (\d{3})\.\d+ ", text)
        return (int(found.group(1)) if found else driver), 75
    for line in text.splitlines():
        version, _, capability = line.partition(",")
        for major in re.findall(r"^(\d+)\.", version):
            driver = int(major)
        for major, minor in re.findall(r"^\s*(\d+)\.(\d)", capability):
            capabilities.append(10 * int(major) + int(minor))
    return driver, min(capabilities, default=75)


def detect(say: Callable[[str], None] = lambda _: None) -> str:
    """The build of jax that this machine's hardware calls for, one of `BUILDS`; `say` is told where one can't be used."""
    if not sys.platform.startswith("linux"):
        return "cpu"
    if has_tpu():
        return "tpu"
    found = nvidia()
    if found is None:
        return "cpu"
    driver, capability = found
    if driver >= 580 and capability >= 75:  # CUDA 13 has left what is older than Turing
        return "cuda13"
    if driver >= 525:
        return "cuda12"
    say(f"NVIDIA driver {driver} is older than 525, which the GPU build needs: taking the CPU build")
    return "cpu"
