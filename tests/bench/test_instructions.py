"""The budget of instructions: what passes, what fails and what is said; and that the counting counts."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
from kit.servers import require_server

from bench.instructions import __main__ as command
from bench.instructions import budget, counting, profile
from bench.instructions.budget import Budget, Cost
from bench.instructions.counted import PATHS
from bench.instructions.counting import Spent
from bench.instructions.profile import Function

ECHO = Cost("echo", 1000.0, {"recv": 2.0, "send": 2.0})
TOOLS = {"compiler": "gcc 12.2.0", "cython": "3.3.1"}
ALLOWED = Budget(TOOLS, {"echo": ECHO})


def counted(**changes: object) -> Budget:
    return Budget(TOOLS, {"echo": dataclasses.replace(ECHO, **changes)})


@pytest.mark.parametrize("instructions", [1000.0, 1049.9, 1050.0, 960.0])
def test_growth_up_to_five_percent_passes_without_a_word(instructions: float) -> None:
    assert budget.compare(ALLOWED, counted(instructions=instructions)) == budget.Comparison((), ())


def test_growth_over_five_percent_fails_and_says_which_and_how_much() -> None:
    found = budget.compare(ALLOWED, counted(instructions=1051.0))
    assert found.faults == (
        "echo: 1051.0 instructions of lbcore for one echo, 5.1 % more than the budget's 1000.0 "
        "(it may grow by 5%).",
    )


def test_one_call_more_fails_however_cheap_the_rest_has_become() -> None:
    found = budget.compare(ALLOWED, counted(instructions=500.0, calls={"recv": 3.0, "send": 2.0}))
    assert found.faults == ("echo: recv is called 3 times for one echo, not 2.",)


def test_a_call_every_hundredth_time_is_one_too_many() -> None:
    found = budget.compare(ALLOWED, counted(calls={"recv": 2.01, "send": 2.0}))
    assert found.faults == ("echo: recv is called 2.01 times for one echo, not 2.",)


def test_a_new_kind_of_call_fails_and_so_does_one_that_is_gone() -> None:
    found = budget.compare(ALLOWED, counted(calls={"recv": 2.0, "writev": 1.0}))
    assert found.faults == (
        "echo: writev is called 1 times for one echo, not 0.",
        "echo: send is not called any more: not counted, or --update says so.",
    )


def test_nothing_counted_is_no_improvement() -> None:
    found = budget.compare(ALLOWED, counted(instructions=0.0, calls={}))
    assert len(found.faults) == 3
    assert "either it was not counted" in found.faults[0]


def test_what_became_cheaper_passes_and_is_noted() -> None:
    found = budget.compare(ALLOWED, counted(instructions=900.0))
    assert found.faults == ()
    assert found.notes == (
        "echo: 900.0 instructions, 10.0 % less than the budget's 1000.0: --update keeps it so.",
    )


def test_a_path_without_a_budget_fails() -> None:
    found = budget.compare(ALLOWED, Budget(TOOLS, {"echo": ECHO, "chat": ECHO}))
    assert found.faults == ("chat has no budget: --update gives it one.",)


def test_a_path_that_is_not_counted_any_more_fails_unless_only_some_were_asked_for() -> None:
    allowed = Budget(TOOLS, {"echo": ECHO, "chat": ECHO})
    assert budget.compare(allowed, counted()).faults == (
        "chat has a budget and was not counted: --update takes it out.",
    )
    assert budget.compare(allowed, counted(), everything=False).faults == ()


def test_other_tools_are_named_whatever_comes_out() -> None:
    other = {"compiler": "gcc 14.2.0", "cython": "3.3.1"}
    within = budget.compare(ALLOWED, Budget(other, {"echo": ECHO}))
    assert within.faults == ()
    assert "compiler gcc 12.2.0 (here: gcc 14.2.0)" in within.notes[0]
    assert "cython" not in within.notes[0]
    assert "--update" in within.notes[0]
    grown = budget.compare(ALLOWED, Budget(other, {"echo": dataclasses.replace(ECHO, instructions=2000.0)}))
    assert len(grown.faults) == 2
    assert "may be the reason" in grown.faults[1]


def test_a_budget_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "budgets" / "x86_64.json"
    budget.save(path, ALLOWED)
    assert budget.load(path) == ALLOWED


def test_the_budgets_in_the_tree_are_about_the_paths_there_are() -> None:
    files = list(budget.place("any").parent.glob("*.json"))
    assert files
    for path in files:
        held = budget.load(path)
        assert {key: cost.unit for key, cost in held.paths.items()} == {one.key: one.unit for one in PATHS}
        assert all(cost.instructions > 0 for cost in held.paths.values())
        assert set(held.made_with) == {"awscrt", "compiler", "cython", "valgrind"}


# ---- what callgrind writes -----------------------------------------------------------------------

WRITTEN = """\
version: 1
desc: Trigger: Client Request: tcp-echo

positions: line
events: Ir
summary: 1000

ob=(1) /where/lbcore/worker.so
fl=(1) /src/worker.pyx
fn=(1) __pyx_f_6lbcore_6worker_dispatch
100 32
+2 16
fi=(2) /src/parts/slab.pxd
7 16
fe=(1)
cob=(2) /lib/libc.so.6
cfi=(3) recv.c
cfn=(2) recv
calls=32 20
102 5000
cfn=(3) __pyx_f_6lbcore_6worker_run
calls=16 -2
* 320
* 48

ob=(2)
fl=(3)
fn=(2)
20 999

ob=(1)
fl=(1)
fn=(4) __pyx_f_6lbcore_6worker_dispatch'2
100 16
cob=(3) /where/steps.so
cfn=(5) epoll_wait
calls=17 1
* 10
cob=(2)
cfn=(6) __libc_malloc
calls=16 1
* 10

ob=(4) /where/_awscrt.abi3.so
fn=(7) s2n_send
1 160
cob=(2)
cfn=(6)
calls=64 1
* 10
""".splitlines(keepends=True)

DISPATCH = Function("/where/lbcore/worker.so", "__pyx_f_6lbcore_6worker_dispatch")


def test_callgrinds_file_is_read_without_what_calls_cost() -> None:
    read = profile.parse(WRITTEN)
    assert read.name == "tcp-echo"
    assert read.spent[DISPATCH] == 32 + 16 + 16 + 48 + 16
    assert read.lines[DISPATCH, "/src/parts/slab.pxd", 7] == 16
    assert read.lines[DISPATCH, "/src/worker.pyx", 102] == 16 + 48
    assert read.calls[DISPATCH, Function("/lib/libc.so.6", "recv")] == 32
    run = Function("/where/lbcore/worker.so", "__pyx_f_6lbcore_6worker_run")
    assert read.calls[DISPATCH, run] == 16


def test_only_the_core_and_what_it_calls_itself_is_held_to_a_budget() -> None:
    spent = counting.costs([profile.parse(WRITTEN)], Path("/where/lbcore"), Path("/where/_awscrt.abi3.so"))
    units = 16
    assert spent["tcp-echo"].cost.instructions == (32 + 16 + 16 + 48 + 16) / units
    assert spent["tcp-echo"].cost.calls == {"recv": 2.0, "epoll_wait": 1.0, "malloc": 1.0}
    assert spent["tcp-echo"].tls_library == 160 / units
    assert spent["tcp-echo"].functions == (("worker.dispatch", 128 / units),)


def test_the_cheapest_batch_counts_and_the_fewest_calls() -> None:
    dear = [line.replace("+2 16", "+2 48").replace("calls=32 20", "calls=48 20") for line in WRITTEN]
    batches = [profile.parse(dear), profile.parse(WRITTEN), profile.parse(dear)]
    spent = counting.costs(batches, Path("/where/lbcore"), None)
    assert spent["tcp-echo"].cost.instructions == 8
    assert spent["tcp-echo"].cost.calls["recv"] == 2


# ---- the command ---------------------------------------------------------------------------------


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Spent]:
    """What a run counts, without one; and a place for its budget."""
    found = {"echo": Spent(ECHO, 0.0, (), ())}
    monkeypatch.setattr(command, "find_valgrind", lambda: "valgrind")
    monkeypatch.setattr(command, "tools", lambda valgrind: TOOLS)
    monkeypatch.setattr(command, "count", lambda valgrind, keys: found)
    monkeypatch.setattr(budget, "_FOLDER", tmp_path / "budgets")
    return found


def test_without_a_budget_for_the_architecture_it_fails(
    counts: dict[str, Spent], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([]) == command.NOT_COUNTED
    assert "no budget for" in capsys.readouterr().err


def test_a_new_budget_is_one_command_and_then_holds(
    counts: dict[str, Spent], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--update"]) == command.WITHIN
    assert command.main([]) == command.WITHIN
    grown = dataclasses.replace(ECHO, calls={**ECHO.calls, "epoll_ctl": 1.0})
    counts["echo"] = Spent(grown, 0.0, (), ())
    assert command.main([]) == command.GROWN
    assert "FAILED: echo: epoll_ctl is called 1 times for one echo, not 0." in capsys.readouterr().out


def test_without_valgrind_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert command.main(["--update"]) == command.NOT_COUNTED
    assert "apt-get install valgrind" in capsys.readouterr().err


def test_a_core_that_cannot_be_counted_is_not_taken_for_one_that_has_grown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As after a change of a contract that was not compiled, or without any compiled core."""

    def stale() -> None:
        raise RuntimeError("older than its contracts")

    monkeypatch.setattr(budget, "_FOLDER", tmp_path)
    monkeypatch.setattr(command, "find_valgrind", lambda: "valgrind")
    monkeypatch.setattr(command, "tools", lambda valgrind: TOOLS)
    monkeypatch.setattr(counting, "loops", stale)
    assert command.main(["--update"]) == command.NOT_COUNTED
    assert "older than its contracts" in capsys.readouterr().err
    monkeypatch.setattr(command, "tools", counting.tools)
    monkeypatch.setattr(counting, "_suffix", lambda: ".nowhere")
    assert command.main(["--update"]) == command.NOT_COUNTED
    assert "nothing to count: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_run_counts_the_same_twice() -> None:
    require_server("valgrind")
    keys = ["tcp-echo", "limiter-1"]
    first, second = (counting.count(counting.find_valgrind(), keys) for _ in range(2))
    assert list(first) == keys
    assert first["tcp-echo"].cost.calls["recv"] == 2
    assert first["tcp-echo"].cost.calls["send"] == 2
    for key in keys:
        assert first[key].cost.calls == second[key].cost.calls
        assert first[key].cost.instructions == pytest.approx(second[key].cost.instructions, rel=0.005)
