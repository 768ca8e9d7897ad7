"""python -m hubctl, and the `hubctl` script."""

from __future__ import annotations


def main() -> None:
    """The command line. Loading it takes a moment, in which Ctrl-C is no traceback either."""
    try:
        from hubctl.cli import main as command_line
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    command_line()


if __name__ == "__main__":
    main()
