"""``attnprobe sites``: the attention modules of a model, and how each is recorded."""

import click
from rich.text import Text

from attnprobe.cli.models import Named
from attnprobe.cli.output import Output
from attnprobe.cli.output import command as shared
from attnprobe.fields import Site


@click.command("sites")
@click.argument("model")
@click.option("--all", "every", is_flag=True, help="A line for each module, not for modules that are alike.")
@shared
def command(out: Output, model: str, every: bool) -> None:
    """List the attention modules of MODEL: kind, layers, heads, and the route by which weights are seen.

    Only MODEL's configuration is loaded.

    \b
    attnprobe sites demo
    attnprobe sites ./t5 --json
    """  # noqa: D301 (click wants the backspace itself)
    named = Named(model, progress=False)

    from attnprobe.sites import find_sites

    anatomy = find_sites(named.outline())
    record = {
        "model": type(anatomy.main.backbone).__name__,
        "sites": [vars(site) for site in anatomy.sites],
        "refused": [{"key": key, "reason": reason} for key, reason in anatomy.refused],
    }
    groups: dict[tuple[str, ...], list[Site]] = {}
    for site in anatomy.sites:
        heads = f"{site.heads}" if site.heads == site.kv_heads else f"{site.heads} ({site.kv_heads} of keys)"
        sequence = site.queries if site.queries == site.keys else f"{site.queries} to {site.keys}"
        alike = (site.kind, site.part, heads, sequence, site.route, site.key if every else "")
        groups.setdefault(alike, []).append(site)
    rows = [("modules", "kind", "part", "layers", "heads", "sequence", "route")]
    for (kind, part, heads, sequence, route, _), sites in groups.items():
        first, last = sites[0], sites[-1]
        name, span = first.key, f"{first.layer}"
        if len(sites) > 1:
            name, span = f"{first.key} ... {last.key}", f"{first.layer} to {last.layer}"
        rows.append((name, kind, part, span, heads, sequence, route))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    refused = [f"not recorded: {key} is a {reason}" for key, reason in anatomy.refused]
    out.data(record, Text(lines[0], style="bold"), *lines[1:], *refused)
