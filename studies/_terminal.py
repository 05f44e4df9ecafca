"""What a terminal is given: names in it may come from a file or a database of anybody."""

from __future__ import annotations

import typer


def inert(text: object) -> str:
    """`text` with its line ends, and with what a terminal would obey shown as codes."""
    # It brings pandas, for which `unetpp --help` need not wait.
    from reports.escaping import plain

    return "\n".join(map(plain, str(text).split("\n")))


def tell(text: object) -> None:
    """Print on standard output."""
    typer.echo(inert(text))
