"""Signatures on releases: what holds, and what each tampering is called."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from driftline.errors import InputError, RefusedError, ToolError
from driftline.evidence.history import RELEASES
from driftline.release import make, signatures
from tests.unit.release_evidence import made, write
from tests.unit.test_release import commit, git

WORD = "correct horse"
MAKERS: dict[str, Callable[[], PrivateKeyTypes]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release, unsigned."""
    folder = tmp_path_factory.mktemp("project")
    write(made(), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        git("init", "-q", ".")
        commit()
        make.make("v1")
    return folder


@pytest.fixture(autouse=True)
def project(made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(made_once, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv(signatures.PASSPHRASE, raising=False)
    return folder


def keys(folder: Path, kind: str = "ed25519", word: str = "") -> tuple[Path, Path]:
    """Private and public key as PEM files."""
    private = MAKERS[kind]()
    count = len(list(folder.glob("*.pem")))
    own, public = folder / f"{count}.pem", folder / f"{count}.pub.pem"
    locked = BestAvailableEncryption(word.encode()) if word else NoEncryption()
    own.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    known = private.public_key()
    public.write_bytes(known.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return own, public


def covered() -> list[Path]:
    found = [path for path in RELEASES.rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix != ".sigstore")


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
class TestHolding:
    def test_what_was_signed_is_what_is_checked(self, kind: str, tmp_path: Path) -> None:
        own, public = keys(tmp_path, kind)
        assert signatures.sign("v1", own) == RELEASES / "v1.sigstore"
        signatures.check("v1", public)

    def test_an_encrypted_key_needs_its_passphrase(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own, public = keys(tmp_path, kind, WORD)
        with pytest.raises(InputError, match="encrypted") as refused:
            signatures.sign("v1", own)
        assert "DRIFTLINE_KEY_PASSPHRASE" in refused.value.remedy
        monkeypatch.setenv(signatures.PASSPHRASE, "wrong")
        with pytest.raises(InputError, match="not its passphrase"):
            signatures.sign("v1", own)
        assert not signatures.path_of("v1").exists()
        monkeypatch.setenv(signatures.PASSPHRASE, WORD)
        signatures.sign("v1", own)
        signatures.check("v1", public)

    def test_a_passphrase_for_a_key_that_needs_none_does_no_harm(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own, public = keys(tmp_path, kind)
        monkeypatch.setenv(signatures.PASSPHRASE, WORD)
        signatures.sign("v1", own)
        signatures.check("v1", public)

    def test_signing_again_leaves_a_signature_that_holds(self, kind: str, tmp_path: Path) -> None:
        own, _ = keys(tmp_path, kind)
        before = signatures.sign("v1", own).read_bytes()
        assert signatures.sign("v1", own).read_bytes() == before

    def test_another_key_is_refused_and_may_sign_anew(self, kind: str, tmp_path: Path) -> None:
        own, public = keys(tmp_path, kind)
        other, other_public = keys(tmp_path, kind)
        signatures.sign("v1", own)
        with pytest.raises(RefusedError, match="signed by another key"):
            signatures.check("v1", other_public)
        signatures.sign("v1", other)
        signatures.check("v1", other_public)
        with pytest.raises(RefusedError, match="signed by another key"):
            signatures.check("v1", public)

    def test_openssl_verifies_it_too(self, kind: str, tmp_path: Path) -> None:
        """The envelope alone: what is signed is its pre-authentication encoding (DSSE v1)."""
        own, public = keys(tmp_path, kind)
        bundle = json.loads(signatures.sign("v1", own).read_text())
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"])
        type_ = envelope["payloadType"].encode()
        encoded = b"DSSEv1 %d %s %d %s" % (len(type_), type_, len(payload), payload)
        (tmp_path / "encoded").write_bytes(encoded)
        (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
        raw = ["-rawin"] if kind == "ed25519" else ["-rawin", "-digest", "sha256"]
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public), *raw]
        command += ["-in", str(tmp_path / "encoded"), "-sigfile", str(tmp_path / "sig")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Verified Successfully" in done.stdout, done.stderr


class TestTampering:
    @pytest.fixture
    def public(self, tmp_path: Path) -> Path:
        own, public = keys(tmp_path)
        signatures.sign("v1", own)
        return public

    def test_it_covers_record_page_and_everything_in_the_folder(self, public: Path) -> None:
        bundle = json.loads(signatures.path_of("v1").read_text())
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        named = {RELEASES / each["name"] for each in statement["subject"]}
        assert named == set(covered())
        text = [path.as_posix() for path in covered()]
        for part in ("v1.json", "v1.md", "bom.cdx.json", "cards/gguf", "attestations/cells"):
            assert [path for path in text if part in path]

    def test_one_flipped_byte_in_any_file_is_named(self, public: Path) -> None:
        for path in covered():
            original = path.read_bytes()
            for place in (0, len(original) // 2, len(original) - 1):
                flipped = bytearray(original)
                flipped[place] ^= 1
                path.write_bytes(flipped)
                with pytest.raises(RefusedError) as refused:
                    signatures.check("v1", public)
                named = refused.value.message.splitlines()[1:]
                assert named == [f"  {path.as_posix()}: changed"]
            path.write_bytes(original)
        signatures.check("v1", public)

    def test_extra_and_missing_files_are_named(self, public: Path) -> None:
        (RELEASES / "v1" / "more.txt").write_text("x")
        (RELEASES / "v1" / ".gitignore").write_text("*")
        (RELEASES / "v1.md").unlink()
        with pytest.raises(RefusedError) as refused:
            signatures.check("v1", public)
        assert refused.value.message.splitlines()[1:] == [
            "  reports/releases/v1/.gitignore: extra",
            "  reports/releases/v1/more.txt: extra",
            "  reports/releases/v1.md: missing",
        ]

    def test_a_symlink_is_refused(self, public: Path) -> None:
        path = RELEASES / "v1" / "bom.cdx.json"
        path.rename("elsewhere")
        path.symlink_to(Path("elsewhere").absolute())
        with pytest.raises(RefusedError, match="symlink"):
            signatures.check("v1", public)

    def test_the_signature_of_one_release_is_not_that_of_another(self, public: Path) -> None:
        make.make("v2")
        shutil.copyfile(signatures.path_of("v1"), signatures.path_of("v2"))
        with pytest.raises(RefusedError, match=r"v1\.json: missing"):
            signatures.check("v2", public)

    @pytest.mark.parametrize("field", ["payload", "sig"])
    def test_a_flipped_byte_in_the_signature_is_refused(self, public: Path, field: str) -> None:
        path = signatures.path_of("v1")
        bundle = json.loads(path.read_text())
        envelope = bundle["dsseEnvelope"]
        place = envelope if field == "payload" else envelope["signatures"][0]
        data = bytearray(base64.b64decode(place[field]))
        data[20] ^= 1
        place[field] = base64.b64encode(data).decode()
        path.write_text(json.dumps(bundle))
        with pytest.raises(RefusedError, match="does not hold"):
            signatures.check("v1", public)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "not a signature bundle"),
            ("{}", "not a signature bundle"),
            ("[1]", "not a signature bundle"),
            ("\x00\xff", "not a signature bundle"),
        ],
    )
    def test_what_is_no_bundle_is_refused(self, public: Path, text: str, said: str) -> None:
        signatures.path_of("v1").write_text(text, encoding="latin-1")
        with pytest.raises(RefusedError, match=said):
            signatures.check("v1", public)

    @pytest.mark.parametrize("edit", ["no signatures", "no key", "type", "base64", "unknown field"])
    def test_a_bundle_that_says_less_or_more_is_refused(self, public: Path, edit: str) -> None:
        path = signatures.path_of("v1")
        bundle = json.loads(path.read_text())
        if edit == "no signatures":
            bundle["dsseEnvelope"]["signatures"] = []
        elif edit == "no key":
            del bundle["verificationMaterial"]["publicKey"]
        elif edit == "type":
            bundle["dsseEnvelope"]["payloadType"] = "text/plain"
        elif edit == "base64":
            bundle["dsseEnvelope"]["payload"] = "@@@"
        else:
            bundle["x"] = 1
        path.write_text(json.dumps(bundle))
        with pytest.raises(RefusedError):
            signatures.check("v1", public)

    def test_something_else_that_the_key_signed_is_no_release(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own, public = keys(tmp_path)
        monkeypatch.setattr(signatures, "PREDICATE", "https://slsa.dev/provenance/v1")
        signatures.sign("v1", own)
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path / "project")
        with pytest.raises(RefusedError, match="something else than a release"):
            signatures.check("v1", public)

    def test_a_release_made_anew_is_not_signed(self, public: Path) -> None:
        Path("README.md").write_text("later")
        commit()
        assert make.make("v1", force=True).unsigned
        with pytest.raises(RefusedError, match="is not signed"):
            signatures.check("v1", public)


class TestInputs:
    @pytest.mark.parametrize("kind", ["p384", "rsa"])
    def test_other_kinds_of_keys_are_refused(self, kind: str, tmp_path: Path) -> None:
        own, public = keys(tmp_path, kind)
        with pytest.raises(InputError, match="expected Ed25519 or ECDSA on P-256"):
            signatures.sign("v1", own)
        keys(tmp_path)
        with pytest.raises(InputError, match="expected Ed25519 or ECDSA on P-256"):
            signatures.check("v1", public)

    def test_keys_are_not_taken_for_each_other(self, tmp_path: Path) -> None:
        own, public = keys(tmp_path)
        with pytest.raises(InputError, match="not a private key"):
            signatures.sign("v1", public)
        signatures.sign("v1", own)
        with pytest.raises(InputError, match="not a public key"):
            signatures.check("v1", own)

    def test_a_key_that_is_not_there_is_said_how_to_make(self, tmp_path: Path) -> None:
        with pytest.raises(InputError) as refused:
            signatures.sign("v1", tmp_path / "none.pem")
        assert "openssl genpkey -algorithm ed25519" in refused.value.remedy
        with pytest.raises(InputError) as refused:
            signatures.check("v1", tmp_path / "none.pem")
        assert "-pubout" in refused.value.remedy

    @pytest.mark.parametrize(
        ("name", "said"),
        [("v9", "no release"), ("../v1", "cannot name"), ("v1.json", "cannot name")],
    )
    def test_no_release_of_that_name(self, name: str, said: str, tmp_path: Path) -> None:
        _, public = keys(tmp_path)
        with pytest.raises(InputError, match=said):
            signatures.check(name, public)

    def test_an_edited_record_is_not_signed(self, tmp_path: Path) -> None:
        own, _ = keys(tmp_path)
        path = RELEASES / "v1.json"
        path.write_text(path.read_text().replace('"driftline": "0.1.0"', '"driftline": "0.1.1"'))
        with pytest.raises(RefusedError, match="edited"):
            signatures.sign("v1", own)

    @pytest.mark.parametrize("package", ["securesystemslib", "sigstore_models"])
    def test_without_the_extra_the_install_line_is_said(
        self, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own, _ = keys(tmp_path)
        for name in [each for each in sys.modules if each.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ToolError) as missing:
            signatures.sign("v1", own)
        assert missing.value.remedy == "pip install 'driftline[sign]'"
