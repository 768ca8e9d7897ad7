"""Ctrl-C at a moment when Python cannot bear it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import signal, sys, time
from hubctl import __main__
signal.signal(signal.SIGINT, __main__.on_interrupt)
importing = compile('''
def machinery():
    signal.raise_signal(signal.SIGINT)
    said.append("went on")
''', "<frozen importlib._bootstrap>", "exec")
said = []
exec(importing)
try:
    machinery()
    while len(said) < 2:
        time.sleep(0.01)
except KeyboardInterrupt:
    said.append("interrupted")
print(said)
"""


def test_ctrl_c_in_the_midst_of_an_import_is_raised_behind_it() -> None:
    """Inside, it could be lost and leave the import lock held, and a download would never begin nor end."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['went on', 'interrupted']"
    assert not done.stderr


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """As in `nohup hubctl install … &`."""
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import sys; sys.argv = ['hubctl', '--version']\n"
        "from hubctl.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "True"
