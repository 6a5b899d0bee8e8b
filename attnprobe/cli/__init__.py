"""The command line, one file a command. Data goes to stdout, everything else to stderr.

Exit codes: 0 done; 1 failed; 2 wrong usage, a bad selection included; 3 verification failed; 4 will not fit;
130 interrupted.
"""

import sys

try:
    from collections.abc import Iterator
    from contextlib import contextmanager
    from importlib import import_module
    from typing import Any

    import click

    from attnprobe.version import VERSION
except KeyboardInterrupt:  # there is no command yet that could say so
    sys.stderr.write("interrupted\n")
    raise SystemExit(130) from None

COMMANDS = (
    "bench",
    "capture",
    "export",
    "info",
    "plan",
    "profile",
    "runs",
    "show",
    "sites",
    "stats",
    "verify",
    "view",
)


class _Commands(click.Group):
    """Imports a command's file when it is asked for. An interrupt, also while modules load, ends with one line."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with _interruptible():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _interruptible():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"attnprobe.cli.{cmd_name}").command
        return command


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        raise SystemExit(130) from None


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="attnprobe")
def main() -> None:
    """Record the attention weights of transformer models while they run as they normally run.

    \b
    attnprobe capture demo --text "Maia likes to explore her world!" -o runs/maia
    attnprobe info runs/maia
    attnprobe show runs/maia 3.1

    Exit codes: 0 done, 1 failed, 2 wrong usage or selection, 3 verification failed, 4 will not fit, 130 interrupted.
    """  # noqa: D301 (click wants the backspace itself)
