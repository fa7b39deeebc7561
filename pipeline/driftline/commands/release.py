"""`driftline release`."""

from __future__ import annotations

from pathlib import Path

import click

from driftline.commands.common import clean


@click.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Replace a release of this name.")
@click.option(
    "--sign",
    "key",
    type=click.Path(path_type=Path),
    metavar="KEY.pem",
    help="Sign it with this private key (passphrase: DRIFTLINE_KEY_PASSPHRASE).",
)
@clean
def release(name: str, force: bool, key: Path | None) -> None:
    """Freeze the evidence of HEAD as release NAME, under reports/releases.

    A record (NAME.json), a page for reviewers (NAME.md), and in NAME/ in-toto attestations, a
    CycloneDX BOM and Hub cards. Everything is read from the commit: the same commit gives the same
    bytes, wherever. Exit code 3 when the commit's evidence is not that of its params.yaml and
    evalsets, or the working tree has something else.
    """
    from driftline.evidence.history import RELEASES
    from driftline.release import make, signatures

    made = make.make(name, force=force)
    folder = RELEASES.as_posix()
    if made.written:
        click.echo(f"{name}: {len(made.paths)} files of commit {made.record.commit}")
        click.echo(f"written: {folder}/{name}.json, {folder}/{name}.md, {folder}/{name}/")
    else:
        click.echo(f"{name}: already there, the same: nothing written")
    if made.unsigned:
        click.echo("the signature of the release before was removed")
    if key is not None:
        click.echo(f"signed: {signatures.sign(name, key).as_posix()}")
    if made.written or key is not None:
        click.echo(f"next: git add {folder} && git commit")
