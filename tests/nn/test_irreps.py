import pytest

from mlipjax.nn.irreps import Irrep, parse, tensor_product_paths


def test_parse_sorts_by_degree_natural_parity_first_and_merges():
    assert parse("4x1e + 8x0e+2x1o +  0o + 3x0e + 0x2e") == (
        Irrep(11, 0, 1),
        Irrep(1, 0, -1),
        Irrep(2, 1, -1),
        Irrep(4, 1, 1),
    )
    assert " + ".join(map(str, parse("128x0e + 64x1o"))) == "128x0e + 64x1o"


@pytest.mark.parametrize("text", ["", "64", "64x0", "64x0e, 32x1o", "-1x0e", "64x0e + "])
def test_what_is_not_a_sum_of_irreps_is_refused(text):
    with pytest.raises(ValueError, match=r"irreps must look like '64x0e \+ 32x1o', found"):
        parse(text)


def test_paths_obey_triangle_rule_and_parity():
    inputs, outputs = parse("8x0e + 4x1o"), parse("8x0e + 4x1o + 2x1e + 3x2e")
    paths = {(inputs[p.source].label, p.l_edge, outputs[p.target].label): p.mul for p in paths_of(inputs, outputs)}
    # the harmonics of degree 1 are odd, those of degree 2 even
    assert paths == {
        ("0e", 0, "0e"): 8,
        ("1o", 1, "0e"): 4,
        ("0e", 1, "1o"): 8,
        ("1o", 0, "1o"): 4,
        ("1o", 2, "1o"): 4,
        ("1o", 1, "1e"): 4,
        ("0e", 2, "2e"): 8,
        ("1o", 1, "2e"): 4,
    }


def test_without_parity_only_the_triangle_rule_forbids_a_path():
    inputs, outputs = parse("8x0e + 4x1e"), parse("8x0e + 4x1e")
    paths = tensor_product_paths(inputs, 1, outputs, parity=False)
    assert {(inputs[p.source].label, p.l_edge, outputs[p.target].label): p.mul for p in paths} == {
        ("0e", 0, "0e"): 8,
        ("1e", 1, "0e"): 4,
        ("0e", 1, "1e"): 8,
        ("1e", 0, "1e"): 4,
        ("1e", 1, "1e"): 4,
    }


def paths_of(inputs, outputs):
    paths = tensor_product_paths(inputs, 2, outputs)
    assert [p.target for p in paths] == sorted(p.target for p in paths)
    return paths
