"""Signatures on releases, with a key of your own: offline, no account, no log.

`reports/releases/<name>.sigstore` is a Sigstore bundle (v0.3, of a public key) around a DSSE
envelope around an in-toto statement, whose subjects are all files of the release with their sha256:
`<name>.json`, `<name>.md` and everything in `<name>/`. So one signature covers each of them, and
whoever verifies bundles or envelopes can verify it without driftline.

Keys are PEM files as openssl makes them: Ed25519 (the same release gives the same signature) or
ECDSA on P-256. The passphrase of an encrypted one is read from DRIFTLINE_KEY_PASSPHRASE.

Sources: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md,
https://github.com/in-toto/attestation/blob/main/spec/v1/envelope.md,
https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_bundle.proto.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from driftline.errors import InputError, RefusedError, ToolError
from driftline.evidence.history import RELEASES
from driftline.files import write_text
from driftline.release.contents import checked_name
from driftline.release.statements import STATEMENT
from driftline.schema.artifacts import FileDigest
from driftline.schema.release import ReleaseRecord
from driftline.schema.values import canonical_json
from driftline.store import digest, records

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

PASSPHRASE = "DRIFTLINE_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable
SUFFIX = ".sigstore"
PREDICATE = "urn:driftline:release:v1"
PAYLOAD = "application/vnd.in-toto+json"
BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
SCHEMES = ("ed25519", "ecdsa-sha2-nistp256")
MAKE_KEY = "openssl genpkey -algorithm ed25519 -out KEY.pem"
MAKE_PUBLIC = "openssl pkey -in KEY.pem -pubout -out PUBLIC.pem"


def path_of(name: str) -> Path:
    """Where the signature of a release is."""
    return RELEASES / f"{name}{SUFFIX}"


def sign(name: str, key: Path) -> Path:
    """Sign a release as it lies here; a signature by this key that still holds is left alone.

    Args:
        name: of the release.
        key: private key, PEM.

    Returns:
        The signature's path.

    Raises:
        InputError: there is no such release, or the key cannot be read or used.
        RefusedError: its record was edited, or something else than plain files is in its folder.
        ToolError: the extra `sign` is not installed.
    """
    with _extra():
        signer = _signer(key)
        if path_of(name).is_file():
            try:
                _check(name, signer.public_key)
                return path_of(name)
            except RefusedError:
                pass  # another key, or another content: signed anew
        envelope = _envelope(canonical_json(_statement(name)).encode(), signer)
        write_text(path_of(name), _bundle(envelope, signer.public_key))
        _check(name, signer.public_key)
    return path_of(name)


def check(name: str, public_key: Path) -> None:
    """Check that a release is what the holder of a key signed.

    Args:
        name: of the release.
        public_key: PEM.

    Raises:
        InputError: there is no such release or key.
        RefusedError: it is not signed, by another key, or files are extra, missing or changed: each
            is named.
        ToolError: the extra `sign` is not installed.
    """
    with _extra():
        _check(name, _public(public_key))


@contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ToolError(
            f"signatures need a package that is not installed ({error.name})",
            remedy="pip install 'driftline[sign]'",
        ) from None


# ----------------------------------------------------------------------------------- what is signed


def files(name: str) -> tuple[FileDigest, ...]:
    """Every file of a release, by path from the releases' folder: all but its signature.

    Raises:
        InputError: there is no such release, nor could there be.
        RefusedError: a symlink or the like is among them.
    """
    record = RELEASES / f"{checked_name(name)}.json"
    if not record.is_file():
        known = ", ".join(sorted(path.stem for path in RELEASES.glob("*.json"))) or "none yet"
        raise InputError(
            f'no release "{name}": {record} is not there (releases: {known})',
            remedy=f"driftline release {name}",
        )
    beside = [path for path in (record, RELEASES / f"{name}.md") if path.exists()]
    folder = RELEASES / name
    paths = [*beside, *(digest.regular_files(folder) if folder.is_dir() else ())]
    rows = [
        FileDigest(
            path=path.relative_to(RELEASES).as_posix(),
            size=path.stat().st_size,
            sha256=digest.sha256_file(path),
        )
        for path in paths
    ]
    return tuple(sorted(rows, key=lambda row: row.path.encode()))


def _statement(name: str) -> dict[str, Any]:
    record = records.load_sealed(ReleaseRecord, RELEASES / f"{name}.json")
    return {
        "_type": STATEMENT,
        "subject": [{"name": row.path, "digest": {"sha256": row.sha256}} for row in files(name)],
        "predicateType": PREDICATE,
        "predicate": {"name": name, "commit": record.commit, "seal": record.seal},
    }


# -------------------------------------------------------------------------------------------- keys


def _signer(path: Path) -> CryptoSigner:
    """The private key in a PEM file, by which its owner signs."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    pem = _read(path, "private key", MAKE_KEY)
    encrypted = b"ENCRYPTED" in pem
    word = os.environ.get(PASSPHRASE) if encrypted else None
    if encrypted and not word:
        raise InputError(
            f"{path}: the key is encrypted", remedy=f"export {PASSPHRASE}=… with its passphrase"
        )
    try:
        private = load_pem_private_key(pem, word.encode() if word else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InputError(
            f"{path}: not a private key in PEM"
            + (f", or {PASSPHRASE} is not its passphrase" if encrypted else ""),
            remedy=f"check it (openssl pkey -in {path} -noout), or make one: {MAKE_KEY}",
        ) from None
    return CryptoSigner(private, _checked(private.public_key(), path))


def _public(path: Path) -> SSlibKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        return _checked(load_pem_public_key(_read(path, "public key", MAKE_PUBLIC)), path)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(
            f"{path}: not a public key in PEM", remedy=f"from the private one: {MAKE_PUBLIC}"
        ) from None


def _read(path: Path, what: str, make: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: no {what}: {error.strerror}", remedy=f"make one: {make}"
        ) from None


def _checked(public: Any, path: Path) -> SSlibKey:
    """A public key under the sha256 of its DER form: `openssl pkey -pubin -outform DER`."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from securesystemslib.signer import SSlibKey

    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        key = SSlibKey.from_crypto(public, keyid=hashlib.sha256(der).hexdigest())
        scheme = key.scheme
    except ValueError:
        key, scheme = None, type(public).__name__
    if key is None or scheme not in SCHEMES:
        raise InputError(
            f"{path}: a key for {scheme}; expected Ed25519 or ECDSA on P-256",
            remedy=f"make one: {MAKE_KEY}",
        )
    return key


# -------------------------------------------------------------------------- envelopes and bundles


def _envelope(payload: bytes, signer: CryptoSigner) -> dict[str, Any]:
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, PAYLOAD, {})
    envelope.sign(signer)
    signed: dict[str, Any] = envelope.to_dict()
    return signed


def _bundle(envelope: dict[str, Any], key: SSlibKey) -> str:
    from sigstore_models.bundle.v1 import Bundle, VerificationMaterial
    from sigstore_models.common.v1 import PublicKeyIdentifier
    from sigstore_models.intoto import Envelope

    bundle = Bundle(
        media_type=BUNDLE,
        verification_material=VerificationMaterial(
            public_key=PublicKeyIdentifier(hint=_hint(key)), tlog_entries=[]
        ),
        dsse_envelope=Envelope.from_dict(envelope),
    )
    return json.dumps(bundle.to_dict(), sort_keys=True, indent=1) + "\n"


def _hint(key: SSlibKey) -> str:
    """How sigstore-go names a key: base64 of the same sha256."""
    return base64.b64encode(bytes.fromhex(key.keyid)).decode()


def _check(name: str, key: SSlibKey) -> None:
    actual = files(name)
    path = path_of(name)
    if not path.is_file():
        raise RefusedError(
            f"release {name} is not signed: {path} is not there",
            remedy=f"ask its author to sign it: driftline release {name} --sign KEY.pem",
        )
    remedy = f"git checkout {RELEASES}   (or ask the signer for the release as signed)"
    statement = _payload(path, key, remedy)
    wanted = [
        FileDigest(path=str(each["name"]), size=0, sha256=str(each["digest"]["sha256"]))
        for each in statement["subject"]
    ]
    changes = digest.differences(wanted, actual)
    if changes:
        shown = "\n  ".join(f"{RELEASES}/{each.path}: {each.what}" for each in changes)
        raise RefusedError(f"release {name} is not what was signed:\n  {shown}", remedy=remedy)


def _payload(path: Path, key: SSlibKey, remedy: str) -> dict[str, Any]:
    """The statement in a bundle, its signature checked."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from sigstore_models.bundle.v1 import Bundle

    try:
        bundle = Bundle.from_json(path.read_bytes())
        signed, by = bundle.dsse_envelope, bundle.verification_material.public_key
        if signed is None or by is None:
            raise ValueError("no envelope signed by a key")
        envelope = Envelope.from_dict(signed.to_dict())
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        said = " ".join(str(error).split())[:200]
        raise RefusedError(f"{path}: not a signature bundle: {said}", remedy=remedy) from None
    if by.hint != _hint(key):
        raise RefusedError(
            f"{path}: signed by another key: {by.hint}, the public key given has {_hint(key)}",
            remedy="give the signer's public key, as you got it from the signer",
        )
    try:
        envelope.verify([key], threshold=1)
    except VerificationError:
        raise RefusedError(
            f"{path}: the signature does not hold: it, or what was signed, was edited",
            remedy=remedy,
        ) from None
    return _read_statement(path, envelope.payload_type, envelope.payload, remedy)


def _read_statement(path: Path, kind: str, payload: bytes, remedy: str) -> dict[str, Any]:
    statement: dict[str, Any] = json.loads(payload) if kind == PAYLOAD else {}
    if statement.get("_type") != STATEMENT or statement.get("predicateType") != PREDICATE:
        raise RefusedError(
            f"{path}: signs something else than a release "
            f"({statement.get('predicateType') or kind}, expected {PREDICATE})",
            remedy=remedy,
        )
    return statement
