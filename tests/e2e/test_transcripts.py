"""Every transcript of the protocol, played against a real bridge; and that there is one for all that has a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.contract import METHODS
from bridge.errors import leaves
from tests.support.kit import Kit
from tests.support.transcript import Player, parse

pytestmark = pytest.mark.timeout(60, method="signal")

SCRIPTS = sorted((Path(__file__).parents[1] / "rpc_scripts").glob("*.rpc"))

ELSEWHERE = {
    -32603: "a defect of the bridge: no request brings it about",
    1009: "the kind of a status: see restart_limit.rpc",
    1011: "needs a disk that fails: see the tests of logs",
    1013: "of the search methods",
    1014: "of the methods that change the configuration; at the start it is exit code 2: see config_invalid.rpc",
    1015: "of the methods that change the configuration",
    1019: "the kind of a status: see crashed.rpc",
}
"""Codes that no error answer of these methods has, and why."""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_bridge_answers_as_the_transcript_says(path: Path, kit: Kit) -> None:
    Player(parse(path), kit).play()


def test_every_method_has_a_transcript() -> None:
    covered = set().union(*(parse(path).sent_methods() for path in SCRIPTS))
    assert set(METHODS) - covered == set()


def test_every_error_has_a_transcript() -> None:
    codes = {error.code for error in leaves().values()} | {-32700, -32600, -32601, -32603}
    covered = set().union(*(parse(path).error_codes() for path in SCRIPTS))
    assert codes - covered - set(ELSEWHERE) == set()
    assert covered & set(ELSEWHERE) == set(), "no excuse is needed for these any more"
