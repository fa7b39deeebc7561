"""GGUF headers: what gguf-py wrote is read the same, and nothing else is ever a surprise."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.errors import RefusedError
from driftline.store.gguf_header import (
    FIELD_LIMIT,
    KEPT,
    RANK_LIMIT,
    TENSOR_LIMIT,
    GgufHeader,
    GgufTensor,
    gguf_header,
)
from tests.unit.gguf_bytes import (
    ARRAY,
    F32,
    F32_TENSOR,
    I16,
    I32,
    LAYOUTS,
    Q8_0_TENSOR,
    STRING,
    U8,
    U32,
    array,
    field,
    gguf,
    tensor,
    text,
)

HUGE = 2**63
AT_ONCE = 2.0
"""Seconds within which a refusal is at once."""


WHOLE = gguf(
    [
        field(b"general.architecture", STRING, text(b"llama")),
        field(b"general.alignment", U32, struct.pack("<I", 32)),
        array(b"small", I16, 3, struct.pack("<3h", -1, 0, 1)),
        array(b"long", STRING, KEPT + 1, text(b"token") * (KEPT + 1)),
        array(b"wide", F32, KEPT + 4, b"\x01" * 4 * (KEPT + 4)),
    ],
    [tensor(b"a", [4, 2], F32_TENSOR, 0), tensor(b"b", [32], Q8_0_TENSOR, 32)],
    bytes(range(32)) + b"\x07" * 34,
)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path


def refusal(folder: Path, data: bytes) -> str:
    """What is said of a file that is refused at once."""
    path = written(folder, data)
    started = time.monotonic()
    with pytest.raises(RefusedError) as caught:
        gguf_header(path)
    assert time.monotonic() - started < AT_ONCE
    assert str(path) in str(caught.value) and caught.value.exit_code == 3
    return caught.value.message


class TestRead:
    def test_every_part_of_a_whole_file(self, tmp_path: Path) -> None:
        found = gguf_header(path := written(tmp_path, WHOLE))
        assert list(found.fields) == [
            "general.architecture",
            "general.alignment",
            "small",
            "long",
            "wide",
        ]
        assert found.fields["general.architecture"] == "llama"
        assert found.fields["small"] == [-1, 0, 1]
        assert found.fields["long"].startswith(f"{KEPT + 1} entries, sha256 ")
        start = len(WHOLE) - 66
        assert found.tensors == {
            "a": GgufTensor("F32", (4, 2), start, start + 32),
            "b": GgufTensor("Q8_0", (32,), start + 32, start + 66),
        }
        assert found.tensors["b"].end == path.stat().st_size

    @pytest.mark.parametrize(("kind", "layout"), LAYOUTS.items())
    def test_every_type_of_a_value(self, tmp_path: Path, kind: int, layout: str) -> None:
        value = struct.pack(layout, 1)
        data = gguf([field(b"x", kind, value), array(b"y", kind, 2, value * 2)])
        assert gguf_header(written(tmp_path, data)) == GgufHeader({"x": 1, "y": [1, 1]}, {})

    def test_arrays_are_given_whole_up_to_a_length(self, tmp_path: Path) -> None:
        lists = [array(b"x", U8, KEPT, bytes(KEPT)), array(b"y", U8, KEPT + 1, bytes(KEPT + 1))]
        found = gguf_header(written(tmp_path, gguf(lists))).fields
        assert found["x"] == [0] * KEPT
        assert "sha256" in found["y"]

    @pytest.mark.parametrize("inner", [U8, STRING])
    def test_a_long_arrays_digest_follows_its_content(self, tmp_path: Path, inner: int) -> None:
        entry = text(b"a") if inner == STRING else b"a"
        other = entry.replace(b"a", b"b")
        one, two, three = (
            gguf_header(written(tmp_path, gguf([array(b"x", inner, KEPT + 1, entries)]))).fields
            for entries in (entry * (KEPT + 1), entry * KEPT + other, other + entry * KEPT)
        )
        assert len({one["x"], two["x"], three["x"]}) == 3

    @pytest.mark.parametrize("version", [2, 3])
    def test_both_versions_of_today(self, tmp_path: Path, version: int) -> None:
        assert gguf_header(written(tmp_path, gguf(version=version))) == GgufHeader({}, {})

    def test_the_files_own_alignment_is_kept(self, tmp_path: Path) -> None:
        data = gguf(
            [field(b"general.alignment", U32, struct.pack("<I", 256))],
            [tensor(b"a", [1], F32_TENSOR, 0)],
            b"\x01\x02\x03\x04",
            alignment=256,
        )
        found = gguf_header(written(tmp_path, data)).tensors["a"]
        assert (found.start, found.end) == (256, 260)

    def test_names_that_are_no_utf8_are_read(self, tmp_path: Path) -> None:
        found = gguf_header(written(tmp_path, gguf([field(b"\xff", STRING, text(b"\xfe"))])))
        assert found.fields == {"\\xff": "\\xfe"}


class TestRefused:
    @pytest.mark.parametrize("magic", [b"GGML", b"FUGG", b"gguf", b"\0\0\0\0"])
    def test_another_magic(self, tmp_path: Path, magic: bytes) -> None:
        assert "does not start with GGUF" in refusal(tmp_path, gguf(magic=magic))

    @pytest.mark.parametrize("version", [0, 1, 4, 3 << 24, 2**32 - 1])
    def test_another_version(self, tmp_path: Path, version: int) -> None:
        assert f"version {version}" in refusal(tmp_path, gguf(version=version))

    @pytest.mark.parametrize(
        "counts", [(TENSOR_LIMIT + 1, 0), (0, FIELD_LIMIT + 1), (HUGE, HUGE), (2**64 - 1, 0)]
    )
    def test_counts_no_model_has(self, tmp_path: Path, counts: tuple[int, int]) -> None:
        assert f"{counts[0]} tensors and {counts[1]} fields" in refusal(
            tmp_path, gguf(counts=counts)
        )

    @pytest.mark.parametrize("counts", [(TENSOR_LIMIT, 0), (0, FIELD_LIMIT)])
    def test_counts_the_file_does_not_have(self, tmp_path: Path, counts: tuple[int, int]) -> None:
        assert "inside its header" in refusal(tmp_path, gguf(counts=counts))

    @pytest.mark.parametrize("length", [1000, HUGE, 2**64 - 1])
    def test_a_string_longer_than_the_file(self, tmp_path: Path, length: int) -> None:
        claimed = struct.pack("<Q", length)
        for data in (
            gguf([claimed]),
            gguf([field(b"x", STRING, claimed)]),
            gguf([array(b"x", STRING, 1, claimed)]),
            gguf([array(b"x", STRING, KEPT + 1, claimed)]),
            gguf(tensors=[claimed]),
        ):
            assert "inside its header" in refusal(tmp_path, data)

    @pytest.mark.parametrize("inner", [*LAYOUTS, STRING])
    @pytest.mark.parametrize("count", [1000, HUGE, 2**64 - 1])
    def test_an_array_longer_than_the_file(self, tmp_path: Path, inner: int, count: int) -> None:
        assert "inside its header" in refusal(tmp_path, gguf([array(b"x", inner, count, b"")]))

    @pytest.mark.parametrize("kind", [13, 99, 2**32 - 1])
    def test_a_value_of_no_type(self, tmp_path: Path, kind: int) -> None:
        assert f"value type {kind}" in refusal(tmp_path, gguf([field(b"x", kind, b"")]))
        for count in (0, 1, KEPT + 1, HUGE):
            data = gguf([array(b"x", kind, count, bytes(99))])
            assert f"array of value type {kind}" in refusal(tmp_path, data)

    @pytest.mark.parametrize("depth", [1, 100_000])
    def test_arrays_in_arrays(self, tmp_path: Path, depth: int) -> None:
        nested = struct.pack("<IQ", ARRAY, 1) * depth + struct.pack("<IQ", U8, 0)
        assert "array of value type 9" in refusal(tmp_path, gguf([field(b"x", ARRAY, nested)]))

    def test_a_field_that_is_there_twice(self, tmp_path: Path) -> None:
        twice = [field(b"x", U8, b"\x01"), field(b"x", STRING, text(b"other"))]
        assert "'x' is there twice" in refusal(tmp_path, gguf(twice))

    def test_a_tensor_that_is_there_twice(self, tmp_path: Path) -> None:
        twice = [tensor(b"x", [1], F32_TENSOR, 0)] * 2
        assert "'x': rank 1, or there twice" in refusal(
            tmp_path, gguf(tensors=twice, data=bytes(9))
        )

    @pytest.mark.parametrize("rank", [RANK_LIMIT + 1, 2**32 - 1])
    def test_more_dimensions_than_a_tensor_has(self, tmp_path: Path, rank: int) -> None:
        entry = text(b"x") + struct.pack("<I", rank) + bytes(99)
        assert f"rank {rank}" in refusal(tmp_path, gguf(tensors=[entry]))

    def test_a_tensor_of_no_type(self, tmp_path: Path) -> None:
        assert "99" in refusal(tmp_path, gguf(tensors=[tensor(b"x", [1], 99, 0)]))

    @pytest.mark.parametrize(
        ("shape", "offset"),
        [([9], 0), ([8], 1), ([1], 32), ([1], HUGE), ([HUGE], 0), ([2**64 - 1] * 4, 2**64 - 1)],
    )
    def test_a_tensor_beyond_the_file(self, tmp_path: Path, shape: list[int], offset: int) -> None:
        fits = gguf(tensors=[tensor(b"x", [8], F32_TENSOR, 0)], data=bytes(32))
        assert gguf_header(written(tmp_path, fits)).tensors["x"].end == len(fits)
        data = gguf(tensors=[tensor(b"x", shape, F32_TENSOR, offset)])
        data = data[: -(-len(data) // 32) * 32] + bytes(32)
        assert "'x' ends beyond the file" in refusal(tmp_path, data)

    @pytest.mark.parametrize("alignment", [0, 3, 48, -32])
    def test_an_alignment_that_is_no_power_of_two(self, tmp_path: Path, alignment: int) -> None:
        data = gguf([field(b"general.alignment", I32, struct.pack("<i", alignment))])
        assert f"alignment {alignment}" in refusal(tmp_path, data)

    @pytest.mark.parametrize("size", range(len(WHOLE)))
    def test_a_file_cut_at_any_byte(self, tmp_path: Path, size: int) -> None:
        assert "not a whole GGUF file" in refusal(tmp_path, WHOLE[:size])


@settings(max_examples=400, deadline=2000)
@given(
    edits=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(max_size=8)), max_size=4),
    cut=st.integers(0, len(WHOLE)),
)
def test_any_edit_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(WHOLE)
    for at, new in edits:
        data[at : at + len(new)] = new
    path = written(tmp_path_factory.getbasetemp(), bytes(data[: cut or None]))
    try:
        found = gguf_header(path)
    except RefusedError:
        return
    size = path.stat().st_size
    assert all(0 <= each.start <= each.end <= size for each in found.tensors.values())


# --------------------------------------------------------------------------- against gguf-py


ARRAYS: dict[str, list[Any]] = {
    "few": [1, 2, 3],
    "many": list(range(40)),
    "words": ["a", "é", "🦊"],
    "vocabulary": [f"token {n}" for n in range(50)],
}


@pytest.fixture(params=[32, 64])
def by_gguf_py(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    path = tmp_path / "library.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_custom_alignment(request.param)
    writer.add_uint8("uint8", 200)
    writer.add_int8("int8", -5)
    writer.add_uint16("uint16", 60_000)
    writer.add_int16("int16", -300)
    writer.add_uint32("uint32", 4_000_000_000)
    writer.add_int32("int32", -70_000)
    writer.add_uint64("uint64", 2**63 + 1)
    writer.add_int64("int64", -(2**40))
    writer.add_float32("float32", 1e-5)
    writer.add_float64("float64", 1e-300)
    writer.add_bool("bool", True)
    writer.add_string("string", "naïve {{ template }}\n")
    for name, values in ARRAYS.items():
        writer.add_array(name, values)
    random = np.random.default_rng(3)
    writer.add_tensor("f32", random.normal(size=(3, 5)).astype(np.float32))
    writer.add_tensor("f16", random.normal(size=7).astype(np.float16))
    for kind in (GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_0):
        floats = random.normal(size=(2, 3, 64)).astype(np.float32)
        writer.add_tensor(kind.name, quantize(floats, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_it_finds_what_gguf_py_finds(by_gguf_py: Path) -> None:
    from gguf import GGUFReader

    found, theirs = gguf_header(by_gguf_py), GGUFReader(by_gguf_py)
    fields = {
        name: field.contents()
        for name, field in theirs.fields.items()
        if not name.startswith("GGUF.")
    }
    assert list(found.fields) == list(fields)
    for name, value in fields.items():
        if isinstance(value, list) and len(value) > KEPT:
            assert found.fields[name].startswith(f"{len(value)} entries, sha256 ")
        else:
            assert found.fields[name] == value, name
    assert found.fields["words"] == ARRAYS["words"]

    whole = by_gguf_py.read_bytes()
    assert list(found.tensors) == [each.name for each in theirs.tensors]
    for each in theirs.tensors:
        own = found.tensors[each.name]
        assert (own.dtype, list(own.shape)) == (each.tensor_type.name, each.shape.tolist())
        assert (own.start, own.end) == (each.data_offset, each.data_offset + each.n_bytes)
        assert whole[own.start : own.end] == each.data.tobytes()
