from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from driftline.errors import RefusedError
from driftline.store.safetensors_header import BITS, TensorInfo, census, safetensors_header
from tests.checkpoints import raw_safetensors

ENTRY = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
DTYPES = (np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_)
ARRAYS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=12).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)),
    max_size=5,
)


def library_reads(path: Path) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    """What the safetensors library finds in a file, None when it refuses it."""
    try:
        with safe_open(str(path), "numpy") as file:
            return {
                name: (part.get_dtype(), tuple(part.get_shape()))
                for name in file.keys()  # noqa: SIM118 - not a mapping
                for part in [file.get_slice(name)]
            }
    except SafetensorError:
        return None


def read_or_refuse(path: Path) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    try:
        return {name: (info.dtype, info.shape) for name, info in safetensors_header(path).items()}
    except RefusedError:
        return None


@settings(deadline=None)
@given(ARRAYS)
def test_reads_what_the_library_wrote(arrays: dict[str, tuple[Any, list[int]]]) -> None:
    tensors = {name: np.ones(shape, dtype) for name, (dtype, shape) in arrays.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.safetensors")
        save_file(tensors, str(path), metadata={"format": "pt"})
        header = safetensors_header(path)
        raw = path.read_bytes()
        assert read_or_refuse(path) == library_reads(path)
    assert header.keys() == tensors.keys()
    for name, info in header.items():
        assert info.shape == tensors[name].shape
        assert raw[info.start : info.end] == tensors[name].tobytes()
        assert (info.end - info.start) * 8 == BITS[info.dtype] * info.elements


@pytest.mark.parametrize("dtype", BITS)
def test_knows_the_same_types_as_the_library(tmp_path: Path, dtype: str) -> None:
    entry = {"dtype": dtype, "shape": [8], "data_offsets": [0, BITS[dtype]]}
    path = raw_safetensors(tmp_path / "x", {"a": entry}, b"\0" * BITS[dtype])
    assert read_or_refuse(path) == library_reads(path) == {"a": (dtype, (8,))}


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "x.safetensors"
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.ones(5, np.uint8), "c": np.ones((), "<i8")}
    save_file(arrays, str(path), metadata={"format": "pt"})
    return path.read_bytes()


EDITS = st.lists(
    st.tuples(st.sampled_from(("set", "insert", "delete")), st.integers(0), st.binary(max_size=3)),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, edits: list[tuple[str, int, bytes]], *, keep_length: bool) -> bytes:
    """Change the length and the header at random places, then set the length right if asked."""
    end = 8 + int.from_bytes(data[:8], "little")
    head, rest = bytearray(data[:end]), data[end:]
    for what, at, new in edits:
        place = at % (len(head) + 1)
        stop = place if what == "insert" else place + max(len(new), 1)
        head[place:stop] = b"" if what == "delete" else new
    if not keep_length and len(head) >= 8:
        head[:8] = struct.pack("<Q", len(head) - 8)
    return bytes(head) + rest


@settings(max_examples=600, deadline=5000)
@given(edits=EDITS, keep_length=st.booleans(), cut=st.integers(0, 400))
def test_any_edit_is_read_or_refused(
    valid: bytes, edits: list[tuple[str, int, bytes]], keep_length: bool, cut: int
) -> None:
    data = edited(valid, edits, keep_length=keep_length)
    data = data[: len(data) - cut] if cut % 3 == 0 else data
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        found = read_or_refuse(Path(file.name))
        if found is not None:  # never more than the library itself accepts
            assert found == library_reads(Path(file.name))


SMALL = st.integers(0, 6)
HEADERS = st.dictionaries(
    st.sampled_from("abc"),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(("U8", "F4", "F16")),
            "shape": st.lists(st.integers(0, 3), max_size=2),
            "data_offsets": st.tuples(SMALL, SMALL).map(sorted),
        }
    ),
    max_size=3,
)


@settings(max_examples=600, deadline=None)
@given(header=HEADERS, size=SMALL, exact=st.booleans())
def test_accepts_exactly_what_the_library_does(
    header: dict[str, Any], size: int, exact: bool
) -> None:
    if exact:  # make most shapes fit their bytes, so that coverage decides
        for entry in header.values():
            start, end = entry["data_offsets"]
            entry |= {"dtype": "U8", "shape": [end - start]}
    with tempfile.TemporaryDirectory() as folder:
        path = raw_safetensors(Path(folder, "x.safetensors"), header, b"x" * size)
        assert read_or_refuse(path) == library_reads(path)


def test_every_truncation_is_refused(valid: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for length in range(len(valid)):
        path.write_bytes(valid[:length])
        with pytest.raises(RefusedError, match="not a whole Safetensors file"):
            safetensors_header(path)


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": ENTRY | changes}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b'{"a":1,"a":2}', b"", "key 'a' is there twice"),
        (b'{"a":{"dtype":"U8","dtype":"I8"}}', b"", "key 'dtype' is there twice"),
        (b"[]", b"", "does not start with {"),
        (b' {"a":1}', b"", "does not start with {"),
        (b"{" + b'"a":[' * 5000, b"", "nested too deeply|delimiter"),
        (b'{"a":' + b"[" * 100_000, b"", "nested too deeply"),
        (b'{"\xff":1}', b"", "not UTF-8: byte 2"),
        (b"{}{}", b"", "Extra data"),
        (b'{"a":' + b"9" * 5000 + b"}", b"", "digits"),
        ({"__metadata__": {"format": 1}}, b"", "__metadata__"),
        ({"a": 1}, b"", "expected dtype, shape and data_offsets"),
        (entry(extra=1), b"xx", "expected dtype, shape and data_offsets"),
        (entry(dtype="F31"), b"xx", "unknown dtype 'F31'"),
        (entry(dtype=["U8"]), b"xx", "unknown dtype"),
        (entry(shape=[-2]), b"xx", "impossible shape"),
        (entry(shape=[True, 2]), b"xx", "impossible shape"),
        (entry(shape=[2.0]), b"xx", "impossible shape"),
        (entry(shape=[1] * 70), b"xx", "impossible shape"),
        (entry(shape=[2**63, 2**63]), b"xx", "impossible shape"),
        (entry(shape=[2**62] * 60), b"xx", "cannot be U8 of shape"),
        (entry(data_offsets=[0]), b"xx", "impossible data_offsets"),
        (entry(data_offsets=[2, 0]), b"xx", "cannot be U8"),
        (entry(dtype="F4", shape=[3]), b"xx", "cannot be F4"),
        (entry(data_offsets=[1, 3]), b"xxx", "'a' follows a gap"),
        ({"a": ENTRY, "b": ENTRY}, b"xx", "'b' overlaps"),
        (entry(), b"xxx", "tensors end at byte 70, the file at byte 71"),
        (entry(), b"x", "tensors end at byte 70, the file at byte 69"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    path = raw_safetensors(tmp_path / "x.safetensors", header, data)
    with pytest.raises(RefusedError, match=message) as caught:
        safetensors_header(path)
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_length_beyond_the_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for length, message in ((2**64 - 1, "more than 100000000"), (99_999_999, "the file has 5")):
        path.write_bytes(struct.pack("<Q", length) + b"{    ")
        with pytest.raises(RefusedError, match=message):
            safetensors_header(path)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="No such file"):
        safetensors_header(tmp_path / "none.safetensors")


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    name = "\x1b[31m\n::error::" + "x" * 5000
    path = raw_safetensors(tmp_path / "x.safetensors", {name: 1})
    with pytest.raises(RefusedError) as caught:
        safetensors_header(path)
    assert "\x1b" not in str(caught.value)
    assert "\n::" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_census_counts_types_elements_and_bits(tmp_path: Path) -> None:
    save_file(
        {"a": np.ones((4, 8), np.float16), "b": np.ones(3, np.float32)},
        str(tmp_path / "model-00001-of-00002.safetensors"),
    )
    save_file({"c": np.ones((), np.float32)}, str(tmp_path / "model-00002-of-00002.safetensors"))
    found = census(tmp_path)
    assert found.types == {"F16": 1, "F32": 2}
    assert found.elements == {"F16": 32, "F32": 4}
    assert (found.tensors, found.weights) == (3, 36)
    assert found.bits_per_weight == round((32 * 16 + 4 * 32) / 36, 4)
    assert json.loads(found.model_dump_json())["metadata"] == {}


def test_census_of_nothing(tmp_path: Path) -> None:
    assert census(tmp_path).bits_per_weight == 0.0


def test_a_scalar_has_one_element() -> None:
    assert TensorInfo("F32", (), 0, 4).elements == 1
