"""The layered layout: laws that hold for any forest, and for what is none."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from driftline.report.html.layout import layered

GAP = 10.0


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """Nodes with heights, and edges between any of them, circles and strangers among them."""
    names = [f"n{at}" for at in range(draw(st.integers(0, 12)))]
    heights = {name: float(draw(st.integers(20, 120))) for name in names}
    ends = st.sampled_from([*names, "stranger"])
    return heights, draw(st.lists(st.tuples(ends, ends), max_size=20))


@given(graphs())
def test_no_box_meets_another_and_children_stand_right_of_their_parent(
    graph: tuple[dict[str, float], list[tuple[str, str]]],
) -> None:
    heights, edges = graph
    found = layered(heights, edges, GAP)
    assert set(found.nodes) == set(heights)
    for one, other in combinations(heights, 2):
        a, b = found.nodes[one], found.nodes[other]
        if a.column == b.column:
            apart = max(a.top - b.top - heights[other], b.top - a.top - heights[one])
            assert apart >= GAP - 1e-6
    for parent, child in found.edges:
        assert (parent, child) in edges
        assert found.nodes[child].column == found.nodes[parent].column + 1
    assert len({child for _, child in found.edges}) == len(found.edges)
    for name, place in found.nodes.items():
        assert place.top >= -1e-6
        assert place.top + heights[name] <= found.height + 1e-6
        assert 0 <= place.column < found.columns


@given(graphs())
def test_an_edge_is_left_out_only_where_it_cannot_be_drawn(
    graph: tuple[dict[str, float], list[tuple[str, str]]],
) -> None:
    heights, edges = graph
    drawn = {child for _, child in layered(heights, edges, GAP).edges}
    above = {child: parent for parent, child in layered(heights, edges, GAP).edges}
    for parent, child in edges:
        if parent in heights and child in heights and child not in drawn:
            step: str | None = parent
            while step is not None and step != child:
                step = above.get(step)
            assert step == child, "it would close a circle"


def test_the_first_child_stands_level_with_its_parent() -> None:
    found = layered({"a": 40, "b": 20, "c": 20}, [("a", "b"), ("a", "c")], GAP)
    middles = {
        name: place.top + {"a": 40, "b": 20, "c": 20}[name] / 2
        for name, place in found.nodes.items()
    }
    assert middles["a"] == middles["b"]
    assert found.nodes["c"].top == found.nodes["b"].top + 20 + GAP
