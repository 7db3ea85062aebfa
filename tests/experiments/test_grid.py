"""Grids of cells."""

import pytest

from experiments.grid import Cell, chain, product, values, zipped


def test_product_zip_and_chain():
    rates = values("data.mask_rate", 0.15, 0.4)
    units = values("data.mask_units", "token", "span")
    assert [cell.name for cell in product(rates, units)] == [
        "mask_rate=0.15, mask_units=token", "mask_rate=0.15, mask_units=span",
        "mask_rate=0.4, mask_units=token", "mask_rate=0.4, mask_units=span",
    ]  # fmt: skip
    together = zipped(rates, units)
    assert [dict(cell.settings) for cell in together] == [
        {"data.mask_rate": 0.15, "data.mask_units": "token"},
        {"data.mask_rate": 0.4, "data.mask_units": "span"},
    ]
    assert chain(rates, together) == [*rates, *together]
    assert product(rates, [Cell("electra", family="electra")])[1].family == "electra"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: zipped(values("a", 1, 2), values("b", 1)), r"\[2, 1\] cells"),
        (lambda: product(values("a", 1), values("a", 2)), "a is both 1 and 2"),
        (lambda: chain(values("a", 1), values("a", 1)), "cells of the same name: a=1"),
        (lambda: chain([Cell("A b")], [Cell("a-b")]), "folders of the same name: a-b"),
        (lambda: product([Cell("x", family="bert")], [Cell("y", family="albert")]), "several"),
    ],
)
def test_what_does_not_go_together_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_names_become_folders():
    assert Cell("80/10/10 at 40%").folder == "80-10-10-at-40pc"
    assert Cell("mask_rate=0.15").folder == "mask-rate=0.15"
