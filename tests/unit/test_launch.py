"""The files in launch/ start what they say."""

import os
import subprocess
from pathlib import Path

import yaml

LAUNCH = Path(__file__).parents[2] / "launch"


def command(place: Path, name: str, script: str) -> None:
    (place / name).write_text(f"#!/bin/bash\n{script}\n")
    (place / name).chmod(0o755)


def slurm(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The batch script under a stand-in for Slurm with two machines of eight GPUs, and one for torchrun."""
    command(tmp_path, "scontrol", 'echo -e "first\\nsecond"')
    command(tmp_path, "srun", '[ "$1" = --kill-on-bad-exit=1 ] && shift; exec "$@"')
    command(tmp_path, "torchrun", 'echo "$OMP_NUM_THREADS threads"; printf "%s\\n" "$@"')
    given = {"SLURM_JOB_NODELIST": "machine[1-2]", "SLURM_JOB_ID": "7", "SLURM_NNODES": "2"}
    given |= {"SLURM_GPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "64", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = ["bash", str(LAUNCH / "slurm.sbatch"), *words]
    return subprocess.run(script, env=os.environ | given, capture_output=True, text=True)


def test_the_batch_script_starts_torchrun_with_the_jobs_machines_and_gpus(tmp_path):
    done = slurm(tmp_path, "my.toml", "training.parallel=zero3", "--out", "runs/my run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "8 threads",
        *("--nnodes", "2", "--nproc-per-node", "8", "--rdzv-id", "7", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", "first:29500", "-m", "pretextlm", "pretrain"),
        *("my.toml", "training.parallel=zero3", "--out", "runs/my run", "--resume"),
    ]


def test_the_batch_script_without_a_recipe_says_how_it_is_used(tmp_path):
    done = slurm(tmp_path)
    assert done.returncode == 2
    assert done.stdout.startswith("usage: sbatch launch/slurm.sbatch RECIPE")


def test_the_job_has_as_many_pods_as_machines_and_each_finds_the_first():
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    name, spec = job["metadata"]["name"], job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    arguments = container["args"]
    assert spec["completions"] == spec["parallelism"] == int(arguments[0].removeprefix("--nnodes="))
    assert f"--master-addr={name}-0.{pod['subdomain']}" in arguments
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": name}
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert f"--nproc-per-node={gpus}" in arguments
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
