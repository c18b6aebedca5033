"""Names, aliases, and suggestions for names that are nearly right."""

from __future__ import annotations

import pytest

from sdekit.errors import InterfaceError, OptionError, UnknownNameError
from sdekit.registry import Registry, check_options


@pytest.fixture
def registry() -> Registry[int]:
    out: Registry[int] = Registry("thing")
    out.register("karras", 1, ("edm",))
    out.register("uniform", 2)
    return out


def test_names_and_aliases_find_the_same(registry: Registry[int]) -> None:
    assert registry.get("karras") == registry.get("edm") == 1 and registry.resolve("edm") == "karras"
    assert registry.aliases("karras") == ("edm",) and registry.aliases("uniform") == ()
    assert list(registry) == ["karras", "uniform"] and len(registry) == 2


def test_an_alias_may_stand_for_options(registry: Registry[int]) -> None:
    registry.alias("karras 3", "edm", rho=3.0)
    registry.alias("k", "karras")
    assert registry.resolve("karras 3") == registry.resolve("k") == "karras"
    assert registry.options("karras 3") == {"rho": 3.0} and registry.options("k") == registry.options("karras") == {}
    assert registry.aliases("karras") == ("edm", "k") and registry.with_options("karras") == {"karras 3": {"rho": 3.0}}
    with pytest.raises(OptionError, match="free"):
        registry.alias("edm", "uniform")
    with pytest.raises(UnknownNameError):
        registry.alias("other", "nothing")


def test_a_name_is_taken_once_and_a_failed_registration_leaves_nothing(registry: Registry[int]) -> None:
    for name, aliases in (("karras", ()), ("edm", ()), ("new", ("uniform",)), ("new", ("edm",))):
        with pytest.raises(OptionError, match="free"):
            registry.register(name, 3, aliases)
    assert list(registry) == ["karras", "uniform"] and len(registry) == 2


@pytest.mark.parametrize("typo", ["karas", "kerras", "karrass", "arras", "Karras", "kaarras", "akrras"])
def test_a_letter_wrong_suggests_the_right_name(registry: Registry[int], typo: str) -> None:
    with pytest.raises(UnknownNameError, match=r"thing: got .*'karras'"):
        registry.get(typo)


def test_what_is_nowhere_near_lists_all(registry: Registry[int]) -> None:
    with pytest.raises(UnknownNameError, match="edm, karras, uniform"):
        registry.get("zzz")
    with pytest.raises(InterfaceError, match="string"):
        registry.get(3)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError):
        Registry("thing").get("a")


def test_options_are_those_that_can_be_passed_by_keyword() -> None:
    def function(process: int, steps: int, *, rho: float = 7.0) -> None: ...

    check_options("karras", function, {"rho": 3.0, "steps": 2})
    with pytest.raises(UnknownNameError, match=r"karras\(rh=\).*'rho'"):
        check_options("karras", function, {"rh": 3.0})
    with pytest.raises(UnknownNameError, match="takes none"):
        check_options("plain", lambda: None, {"rho": 1.0})
