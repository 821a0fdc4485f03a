"""What a monitor is told of a federation that works, and of a member that lost the others."""

from collections.abc import Callable

from collegium.cli.monitor import CRITICAL, OK

from ...firstweek.schools import Answer, collegium
from .conftest import Federation


def test_a_federation_that_goes_on_is_ok_and_one_without_a_quorum_is_critical(
    federation: Callable[..., Federation],
) -> None:
    running = federation(count=2, rounds=1000)
    running.start()
    running.wait_rounds(1)
    home = running.institutions[0].home.root
    last = Answer(0, "", "")

    def told(code: int) -> bool:
        nonlocal last
        last = collegium("node", "status", "--check", "--home", home)
        return last.code == code

    running.wait(lambda: told(OK))
    assert last.out.startswith("ok: node-0 runs, height ")
    for daemon in running.daemons[1:]:
        daemon.kill()
    del running.daemons[1:]
    running.wait(lambda: told(CRITICAL))
    assert "rounds wait until more can be reached" in last.out
