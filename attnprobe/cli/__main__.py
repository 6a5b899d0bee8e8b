"""``python -m attnprobe.cli``."""

from attnprobe.cli import main

main(prog_name="attnprobe")
