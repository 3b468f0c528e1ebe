"""Secrets stay out of whatever is shown, and what is no secret stays readable."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.settings import SidecarSettings, sidecar_from_mapping
from bridge.supervision.redact import MASK, Redactor


def sidecar(**fields: Any) -> SidecarSettings:
    return sidecar_from_mapping("web", {"command": ["x"], **fields}, folder="/", environ={"FROM_OUTSIDE": "0utside!"})


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        (["hunter22"], "password=hunter22;", "password=***;"),
        (["hunter22"], "xhunter22x hunter22", "x***x ***"),
        (["abcd", "abcdef"], "abcdef abcd", "*** ***"),
        (["a.c+"], "a.c+ abcc", "*** abcc"),
        ([""], "anything", "anything"),
        ([], "anything", "anything"),
        (["42"], "pin 42, port 4242, x42", "pin ***, port 4242, x42"),
        (['say "hi"\n'], r'{"said": "say \"hi\"\n"}', '{"said": "***"}'),
        (["p@ss/word"], "http://u:p%40ss%2Fword@host/", "http://u:***@host/"),
        (["-----BEGIN KEY-----\nMIIEvQIBADANBg\n}\n"], "MIIEvQIBADANBg }", "*** }"),
        (["пароль1"], r"это пароль1, \u043f\u0430\u0440\u043e\u043b\u044c1", "это ***, ***"),
        (["odd\udce9byte"], "odd\udce9byte odd%E9byte", "*** ***"),
    ],
)
def test_a_secret_is_masked_wherever_it_stands(secrets: list[str], text: str, shown: str) -> None:
    assert Redactor(secrets).text(text) == shown


def test_structure_stays_and_every_text_in_it_is_redacted() -> None:
    value = {"a hunter22": ["hunter22", 1, None, True, 1.5], "b": ("hunter22", {"c": "no"})}
    assert Redactor(["hunter22"]).value(value) == {"a ***": ["***", 1, None, True, 1.5], "b": ("***", {"c": "no"})}


def test_a_struct_stays_one() -> None:
    class Inner(msgspec.Struct):
        tail: list[str]

    class Outer(msgspec.Struct):
        message: str
        inner: Inner | None
        count: int = 0

    before = Outer("hunter22", Inner(["hunter22"]), 3)
    assert Redactor(["hunter22"]).value(before) == Outer("***", Inner(["***"]), 3)
    assert before.message == "hunter22"


def test_the_secrets_of_a_sidecar_come_from_its_environment_and_the_inherited_one() -> None:
    web = sidecar(
        env={"A": "secret-a", "B": "${FROM_OUTSIDE}", "C": "braces {{}}", "OPEN": "not-hidden"},
        secrets=["A", "B", "C", "INHERITED", "ABSENT"],
    )
    redactor = Redactor.of(web, {"INHERITED": "secret-i", "OTHER": "not-secret"})
    shown = redactor.text("secret-a 0utside! braces {} secret-i not-hidden not-secret")
    assert shown == "*** *** *** *** not-hidden not-secret"


def test_of_a_secret_with_a_placeholder_the_rest_is_masked() -> None:
    web = sidecar(port=0, env={"A": "token-{port}-tail"}, secrets=["A"])
    assert Redactor.of(web, {}).text("A=token-8080-tail") == "A=***8080***"


READABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="*\0"))


@settings(derandomize=True, deadline=None)
@given(st.lists(READABLE.filter(lambda secret: len(secret) >= 4), max_size=4), READABLE, READABLE)
def test_no_secret_of_a_usable_length_survives(secrets: list[str], before: str, after: str) -> None:
    for secret in secrets:
        shown = Redactor(secrets).text(f"{before}{secret}{after}")
        assert MASK in shown
        assert secret not in shown
