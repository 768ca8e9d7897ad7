"""python -m hubctl, and the `hubctl` script."""

from __future__ import annotations

import signal
from types import FrameType

LATER = 0.01  # seconds


def on_interrupt(_number: int, frame: FrameType | None) -> None:
    """Ctrl-C, but not between two lines of an import.

    What is raised there may be swallowed, and leaves Python's import lock held: every other thread waits for it for
    ever. A moment later is as good.
    """
    if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        signal.signal(signal.SIGALRM, on_interrupt)
        signal.setitimer(signal.ITIMER_REAL, LATER)
        return
    raise KeyboardInterrupt


def main() -> None:
    """The command line. Loading it takes a moment, in which Ctrl-C is no traceback either."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where somebody has it ignored
        signal.signal(signal.SIGINT, on_interrupt)
    try:
        from hubctl.cli import main as command_line
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    command_line()


if __name__ == "__main__":
    main()
