"""What is read out of a compiled program: text that the compiler wrote once, and writes now."""

import pytest

from launch.preflight.hlo import Program
from tests.launch import programs

GRADIENT = 512 * 1024 * 4  # bytes of a float32 gradient of 512 × 1024


def cost_of(name):
    return Program((programs.FOLDER / f"{name}.txt").read_text()).cost()


def rows(cost):
    return [(one.kind, one.over, one.group, one.times, one.bytes) for one in cost.collectives]


def test_a_loop_counts_as_often_as_it_turns():
    cost = cost_of("scan")
    # 512³ products a turn, two operations each, at most 131,072 a cycle.
    assert cost.cycles > 7 * 2 * 512**3 / 131_072
    source, cycles = cost.dearest(1)[0]
    assert source.startswith("launch/programs.py:") and cost.largest[source][1] == "dot_general"
    assert cycles % 7 == 0 and not cost.unknown_loops


def test_of_two_branches_the_dearer_counts():
    product = cost_of("branches")
    assert any(largest == "dot_general" for _, largest in product.largest.values())
    assert product.cycles < cost_of("scan").cycles / 3


def test_data_parallel_adds_gradients_up_once():
    cost = cost_of("data")
    assert rows(cost) == [("all-reduce", "ici", 4, 1, GRADIENT)]
    assert cost.collectives[0].sent == 2 * 3 / 4 * GRADIENT


def test_fsdp_gathers_weights_and_scatters_gradients():
    cost = cost_of("fsdp")
    # The compiler gathers the part of each device in bfloat16, as its product needs it.
    assert sorted(rows(cost)) == [
        ("all-gather", "ici", 4, 1, GRADIENT / 4 / 2),
        ("reduce-scatter", "ici", 4, 1, GRADIENT),
    ]
    assert sorted(one.sent for one in cost.collectives) == [
        3 / 4 * GRADIENT / 2,
        3 / 4 * GRADIENT,
    ]


def test_between_slices_goes_what_a_device_has_of_the_sum():
    cost = cost_of("slices")
    assert rows(cost) == [
        ("reduce-scatter", "ici", 4, 1, GRADIENT),
        ("all-reduce", "dcn", 2, 1, GRADIENT / 4),
        ("all-gather", "ici", 4, 1, GRADIENT / 4),
    ]
    assert cost.collectives[1].sent == GRADIENT / 4


def test_a_kernel_has_what_it_says_of_itself():
    (kernel,) = cost_of("kernel").kernels
    assert (kernel.flops, kernel.bytes, kernel.times) == (3e6, 2e6, 3)


GROUPS = {
    "{{0,1},{2,3}}": 2,
    "[32,8]<=[256]": 8,
    "[4,64]<=[8,32]T(1,0)": 64,
    "mesh['data'=32,'fsdp'=8,'tensor'=1] {'fsdp'}": 8,
    "mesh['data'=32,'fsdp'=8] {'data','fsdp'}": 256,
    "mesh['axis_0'=256] {'axis_0':(1)16}": 16,
    "{}": 12,
}


@pytest.mark.parametrize("groups", GROUPS)
def test_sizes_of_groups_in_all_their_spellings(groups):
    text = (
        "HloModule small, num_partitions=12\n\n"
        "ENTRY %main (x: bf16[8,16]) -> bf16[8,16] {\n"
        "  %x = bf16[8,16]{1,0:T(8,128)} parameter(0)\n"
        f"  ROOT %sum = bf16[8,16]{{1,0}} all-reduce(%x), channel_id=1, replica_groups={groups}, "
        "use_global_device_ids=true, to_apply=%add\n"
        "}\n"
    )
    assert rows(Program(text).cost()) == [("all-reduce", "ici", GROUPS[groups], 1, 8 * 16 * 2)]


def test_an_asynchronous_collective_counts_where_it_starts():
    text = (
        "HloModule small\n\n"
        "ENTRY %main (x: f32[8]) -> f32[8] {\n"
        "  %x = f32[8]{0} parameter(0)\n"
        "  %start = (f32[8]{0}, f32[32]{0}) all-gather-start(%x), replica_groups={{0,1,2,3}}\n"
        "  ROOT %done = f32[32]{0} all-gather-done(%start)\n"
        "}\n"
    )
    assert rows(Program(text).cost()) == [("all-gather", "ici", 4, 1, 32)]


def test_a_collective_spread_over_several_fusions_counts_once():
    piece = (
        "  %{0} = f32[32]{{0}} all-gather(%x), channel_id=9, replica_groups={{{{0,1,2,3}}}}, "
        'frontend_attributes={{chain_id="{1}"}}\n'
    )
    head = "HloModule m\n\nENTRY %main (x: f32[8]) -> f32[32] {\n  %x = f32[8]{0} parameter(0)\n"
    one, other = piece.format("a", 0) + piece.format("b", 0), piece.format("c", 1)
    assert len(rows(Program(head + one + "}\n").cost())) == 1
    assert len(rows(Program(head + one + other + "}\n").cost())) == 2


def test_a_branch_that_was_only_priced_keeps_its_collectives():
    """To see which of two is the dearer both are read; the one that is taken is then counted."""
    piece = (
        "%dear (x: f32[8]) -> f32[32] {\n  %x = f32[8]{0} parameter(0)\n"
        "  ROOT %a = f32[32]{0} all-gather(%x), channel_id=9, replica_groups={{0,1,2,3}}, "
        'frontend_attributes={chain_id="0"}, backend_config={"estimated_cycles":"9"}\n}\n\n'
    )
    cheap = "%cheap (y: f32[8]) -> f32[32] {\n  ROOT %y = f32[8]{0} parameter(0)\n}\n\n"
    main = (
        "ENTRY %main (p: pred[], x: f32[8]) -> f32[32] {\n  %p = pred[] parameter(0)\n"
        "  %x = f32[8]{0} parameter(1)\n  ROOT %c = f32[32]{0} conditional(%p, %x, %x), "
        "branch_computations={%dear, %cheap}\n}\n"
    )
    found = rows(Program("HloModule m\n\n" + piece + cheap + main).cost())
    assert found == [("all-gather", "ici", 4, 1, 32)]


def test_a_loop_of_unknown_length_is_named():
    text = (programs.FOLDER / "scan.txt").read_text().replace("direction=LT", "direction=NE")
    text = text.replace("known_trip_count", "other")
    cost = Program(text).cost()
    assert len(cost.unknown_loops) == 1 and cost.cycles < cost_of("scan").cycles / 3


def test_the_compiler_of_today_is_read_alike():
    """Compiled now: cycles grow with the turns of a loop, and bytes are those of the array."""
    few, many = (Program(programs.scan(turns)).cost() for turns in (5, 20))
    assert not many.unknown_loops
    assert 3.5 < many.cycles / few.cycles <= 4
    data = Program(programs.PROGRAMS["data"]()).cost()
    assert rows(data) == [("all-reduce", "ici", 4, 1, GRADIENT)]
    (kernel,) = Program(programs.kernel(3, says=False)).cost().kernels
    assert kernel.flops is None and kernel.times == 3
    assert kernel.bytes == 2 * 512 * 512 * 4
