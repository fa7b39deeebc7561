"""`driftline verify`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from driftline.commands.common import clean


@click.command()
@click.option("--deep", is_flag=True, help="Recompute every byte: workspace, DVC cache and remote.")
@click.option("--remote", "remotes", multiple=True, metavar="NAME", help="DVC remote; repeatable.")
@click.option("--signature", metavar="RELEASE", help="Check a release's signature instead.")
@click.option("--key", type=click.Path(path_type=Path), help="Public key (PEM) of the signature.")
@clean
def verify(deep: bool, remotes: tuple[str, ...], signature: str | None, key: Path | None) -> None:
    """Hold everything here against its record, and name what does not match.

    Without --deep: the records in git, dvc.lock, names and sizes of what is in the workspace.
    Exit code 3 when something does not match.
    """
    if signature is not None or key is not None:
        _signature(signature, key)
        return
    from driftline.errors import RefusedError
    from driftline.verify import audit as audits
    from driftline.verify.problems import shown

    audit = audits.verify(deep=deep or bool(remotes), remotes=remotes or None)
    for line in shown(audit.problems):
        click.echo(line)
    for note in audit.notes:
        click.echo(f"note     {note}")
    for error in audit.unreachable:
        click.echo(str(error), err=True)
    looked = ", ".join(f"{n} {place}" for place, n in audit.checked.items())
    number = len(audit.problems)
    click.echo(f"{number} problem{'s' if number != 1 else ''}; looked at: {looked}")
    if audit.problems:
        sys.exit(RefusedError.exit_code)
    sys.exit(max((error.exit_code for error in audit.unreachable), default=0))


def _signature(release: str | None, key: Path | None) -> None:
    from driftline.errors import InputError

    if release is None or key is None:
        raise InputError(
            "--signature and --key go together",
            remedy="driftline verify --signature RELEASE --key PUBLIC.pem",
        )
    from driftline.release import signatures

    signatures.check(release, key)
    click.echo(f"release {release}: signed with this key, every file as signed")
