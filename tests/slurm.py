"""Stands in for a cluster: as much of Slurm's commands as submitit needs."""

import sys

COMMANDS = {
    "sbatch": """
script = pathlib.Path(sys.argv[-1])
(home / "script").write_text(script.read_text())
for task in range(int(re.search(r"--array=0-(\\d+)", script.read_text())[1]) + 1):
    begin(task)
print("Submitted batch job 77")
""",
    "srun": "os.execvp(sys.executable, sys.argv[sys.argv.index(sys.executable):])",
    "sacct": "print('JobID|State|NodeList')",
    "scontrol": """
(home / "requeued").write_text(" ".join(sys.argv[1:]))
begin(int(sys.argv[2].partition("_")[2]))
""",
    "scancel": "",
}
BEGIN = """
import os, pathlib, re, subprocess, sys

home = pathlib.Path(__file__).parent


def begin(task):
    known = {"JOB_ID": 100 + task, "ARRAY_JOB_ID": 77, "ARRAY_TASK_ID": task, "NTASKS": 1,
             "JOB_NUM_NODES": 1, "NODEID": 0, "PROCID": 0, "LOCALID": 0, "JOB_NODELIST": "here"}
    env = os.environ | {f"SLURM_{name}": str(value) for name, value in known.items()}
    subprocess.Popen(["bash", str(home / "script")], env=env, start_new_session=True,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

"""


def stand_in(folder):
    """Writes the commands there, to be put first on the PATH, and what they were told later."""
    folder.mkdir()
    for name, text in COMMANDS.items():
        (folder / name).write_text(f"#!{sys.executable}\n{BEGIN}{text}\n")
        (folder / name).chmod(0o755)
    return folder
