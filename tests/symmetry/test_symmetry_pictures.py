"""Pictures hold the numbers of their results."""

import numpy as np
import pytest

from fathometer.drawing.picture import Graph, HeatMap
from fathometer.errors import InputError
from fathometer.results import Table
from fathometer.symmetry import Action, Tying, discover, meter
from fathometer.symmetry.pictures import cayley_picture, meter_picture

A = Action


def marks(picture, kind):
    return [mark for panel in picture.panels for mark in panel.marks if isinstance(mark, kind)]


def test_the_tying_is_drawn_as_matrix_and_as_graph_with_the_same_colors():
    tying = A.cyclic(5).tying("sparse")
    picture = tying.picture()
    (heat,), (graph,) = marks(picture, HeatMap), marks(picture, Graph)
    assert (heat.values == tying.labels).all()
    assert len(graph.edges) == 10
    for (n, m), color in zip(graph.edges, graph.edge_colors, strict=True):
        assert tying.labels[m - 5, n] == color
    assert picture.table[1] == ((0, 5, 1, 1), (1, 5, 1, 1))
    assert "2 weights for 25 entries" in picture.title


def test_large_layers_are_drawn_as_a_matrix_only():
    assert len(A.cyclic(64).tying().picture().panels) == 1


def test_the_cayley_diagram_of_the_dihedral_group_has_its_arrows():
    picture = cayley_picture(A.dihedral(5))
    (graph,) = marks(picture, Graph)
    assert len(graph.positions) == 10
    assert len(np.unique(np.round(graph.positions, 6), axis=0)) == 10
    assert len(graph.edges) == 20
    for color in (0, 1):
        arrows = graph.edges[graph.edge_colors == color]
        assert sorted(arrows[:, 0]) == sorted(arrows[:, 1]) == list(range(10))
    with pytest.raises(InputError, match="720 elements; a Cayley diagram is drawn up to 200"):
        cayley_picture(A.symmetric(6))


def test_symmetries_discoveries_and_the_meter_have_pictures():
    found = Tying([[0, 1, 0]], [0]).automorphisms()
    orbits = marks(found.picture(), HeatMap)
    assert orbits[0].values.tolist() == [[0, 1, 0]]
    assert "discovered" in discover(np.eye(3)).picture().title
    table = meter(np.random.default_rng(0).normal(size=(6, 6)))
    drawn = meter_picture(table)
    assert drawn.panels[0].y.categories == tuple(row.action for row in table)
    assert np.allclose(drawn.panels[0].marks[0].x, [row.defect for row in table])
    with pytest.raises(InputError, match="the table has no rows"):
        meter_picture(Table(title="nothing", rows=()))


def test_the_orbit_table_counts_entries():
    table = A.tuples(3, 2).tying().orbit_table()
    assert sum(row.entries for row in table) == 81
    sparse = A.cyclic(4).tying("sparse").orbit_table()
    assert sparse.notes == ("8 of 16 entries have no edge.",)
    assert [row.in_row for row in sparse] == [1, 1]
