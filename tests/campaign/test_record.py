"""The table of the last nightly run."""

import subprocess
from pathlib import Path

import pytest
from campaign.record import BEGIN, END, README, recorded

ROOT = Path(__file__).resolve().parents[2]


def test_results_take_the_place_of_earlier_ones():
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    files = (
        "tests/a/test_b.py: 3 passed, 2 deselected in 5.01s, 7 s\ntests/c/test_d.py: 1 failed in 1.0s (0:01:00), 60 s\n"
    )
    campaign = "kind  inputs\n.nqx  300\n    1 x some reason\n           first: 3\n300 inputs of 1 kinds, 1 failures\n"
    once = recorded(page, files, campaign, "2030-01-02", "abc1234")
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "old" not in once
    assert "Last run: 2030-01-02, commit abc1234." in once
    assert "| `a/test_b.py` | 3 passed, 2 deselected | 7 |" in once
    assert "| `c/test_d.py` | 1 failed | 60 |" in once
    assert "some reason" not in once
    assert recorded(once, files, campaign, "2030-01-02", "abc1234") == once
    with pytest.raises(ValueError, match="expected FILE"):
        recorded(page, "something else", campaign, "", "")


def test_the_page_has_a_place_for_results():
    page = README.read_text(encoding="utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert page.index(BEGIN) < page.index(END)


def test_the_script_is_shell_and_explains_itself():
    script = ROOT / ".ci" / "nightly"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    done = subprocess.run(["bash", str(script), "--wrong"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout.startswith("What is too long for every change")
