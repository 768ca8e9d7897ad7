"""The runner never reaches a network, not even to find out that there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import layouts

PROBE = """
import json, os, sys

asked = []
def refuse(event, args):  # every socket, connection and name look-up of this process, from Python or C, passes here
    if event.startswith("socket."):
        asked.append(f"{event} by {sys._getframe(2).f_code.co_name}")
        raise OSError("no sockets in this process")
sys.addaudithook(refuse)

from hubctl.run import runner
from hubctl.run.plan import RunPlan
plan = RunPlan(
    checkpoint=sys.argv[1], prompt="a (robot:1.2) in the rain", negative_prompt="blurry", sampler="euler_ancestral",
    schedule=None, steps=2, cfg_scale=5.0, seed=1, width=64, height=64, rng="cpu",
)
result = runner.run(plan, device="cpu")
print(json.dumps({
    "asked": asked, "size": result.images[0].size, "offline": os.environ["HF_HUB_OFFLINE"],
    "silent": [os.environ.get("HF_HUB_DISABLE_TELEMETRY"), os.environ.get("DO_NOT_TRACK")],
}))
"""


def test_a_picture_is_made_without_any_socket(tmp_path: Path) -> None:
    path = layouts.write(tmp_path / "model.safetensors", layouts.weights(layouts.checkpoint(layouts.TINY_SD1)))
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "TRANSFORMERS_")) and name != "DO_NOT_TRACK"
    }
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path)],
        capture_output=True, text=True, check=False,
        env={**kept, "HF_HOME": str(tmp_path / "nothing"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    # urllib3, which a dependency imports, asks the system once whether it knows IPv6; nothing leaves the machine
    assert [event for event in said["asked"] if event != "socket.__new__ by _has_ipv6"] == []
    assert said["size"] == [64, 64]
    assert said["offline"] == "1"
    assert said["silent"] == ["1", "1"]
    assert not (tmp_path / "nothing").exists()
