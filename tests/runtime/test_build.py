"""From a configuration to parts."""

import subprocess
import sys

FLUSHES = """
import torch
from runtime.build import set_up_torch
set_up_torch(2)
small = torch.full((1_000_000,), 1e-39)
assert torch.get_num_threads() == 2
assert not (small * 1.0).view(torch.int32).any()
"""


def test_all_threads_take_denormal_numbers_for_0():
    broken = FLUSHES.replace("set_up_torch(2)", "torch.set_num_threads(2)")
    for program, code in ((FLUSHES, 0), (broken, 1)):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
