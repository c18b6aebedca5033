"""Targets by name hold what their names say."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sdekit import targets
from sdekit.errors import InterfaceError, OptionError, SdekitError, ShapeError


def test_ring() -> None:
    g = targets.ring()
    assert g.means.shape == (8, 2)
    torch.testing.assert_close(g.means.norm(dim=1), torch.full((8,), 4.0).double())
    angles = torch.atan2(g.means[:, 1], g.means[:, 0]).remainder(2 * math.pi)
    torch.testing.assert_close(angles, torch.arange(8).double() * math.pi / 4, atol=1e-14, rtol=0)
    assert g.components.variances.unique().tolist() == [0.3**2]
    assert g.weights.unique().tolist() == [0.125]
    g = targets.ring(components=3, radius=2.0, std=0.1)
    torch.testing.assert_close(g.cov, (2.0 + 0.01) * torch.eye(2).double())


def test_gaussian() -> None:
    for cov in (0.5, torch.tensor([0.5, 2.0]), torch.tensor([[0.5, 0.1], [0.1, 2.0]])):
        g = targets.gaussian([1.0, 2.0], cov)
        expected = torch.as_tensor(cov, dtype=torch.float64)
        expected = expected if expected.ndim == 2 else torch.diag(expected.expand(2))
        torch.testing.assert_close(g.cov, expected, check_dtype=False, rtol=1e-7, atol=1e-12)
        assert g.mean.tolist() == [1.0, 2.0]
    assert targets.gaussian(torch.zeros(3, 2, 2), 1.0).sample(4).shape == (4, 3, 2, 2)


@pytest.mark.parametrize("covariance", ["common", "isotropic", "diagonal", "full", "low_rank"])
def test_random_mixture(covariance: str) -> None:
    g = targets.random_mixture(5, 40, 3, covariance=covariance)
    again = targets.random_mixture(5, 40, 3, covariance=covariance)
    assert torch.equal(g.means, again.means)
    assert torch.equal(g.components.variances, again.components.variances)
    assert not torch.equal(g.means, targets.random_mixture(5, 40, 4, covariance=covariance).means)
    stds = g.components.variances.sqrt()
    assert 0.14 * (1 - 1e-12) <= stds.min() <= stds.max() <= 0.5 * (1 + 1e-12)
    assert g.weights.max() / g.weights.min() <= 4
    assert len(g.weights.unique()) == 40
    wide = {"common": 1, "isotropic": 40, "diagonal": 200, "full": 200, "low_rank": 120}[covariance]
    assert len(stds.unique()) == wide
    # Means spread as N(0, I): |m|^2 is 5 on average, its standard deviation over 40 draws .5.
    assert abs(float((g.means**2).sum(1).mean()) - 5) < 2.5
    narrow = targets.random_mixture(2, 3, 0, covariance=covariance, std=(0.2, 0.2))
    torch.testing.assert_close(narrow.components.variances.sqrt(), torch.full_like(narrow.components.variances, 0.2))


def test_digits() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    g = targets.digits()
    images = datasets.load_digits()["data"]
    assert g.means.shape == (1797, 64)
    assert (float(g.means.min()), float(g.means.max())) == (-1.0, 1.0)
    np.testing.assert_array_equal(g.means.numpy(), images / 8 - 1)
    np.testing.assert_allclose(g.cov.numpy(), np.cov(images.T / 8, bias=True) + 0.01 * np.eye(64), atol=1e-12)
    assert targets.digits(std=0.0).has_point_masses


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n == "sklearn" or n.startswith("sklearn.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(SdekitError, match=r"pip install 'sdekit\[bench\]'"):
        targets.digits()


def test_empirical() -> None:
    data = torch.randn(30, 2, 3, generator=torch.Generator().manual_seed(0))
    g = targets.empirical(data)
    assert g.has_point_masses
    draws = g.sample(200)
    assert (draws[:, None] - data.double()).abs().flatten(2).sum(-1).amin(1).max() == 0
    torch.testing.assert_close(g.mean, data.double().mean(0))
    assert targets.empirical(data, std=0.5).components.variances.unique().tolist() == [0.25]


def test_empirical_of_files(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, size=(5, 2, 3)).astype(np.uint8)
    np.save(tmp_path / "a.npy", data)
    np.savez(tmp_path / "one.npz", images=data)
    np.savez(tmp_path / "two.npz", images=data, labels=np.arange(5.0)[:, None])
    for path, key in (("a.npy", None), ("one.npz", None), ("one.npz", "images"), ("two.npz", "images")):
        g = targets.empirical(tmp_path / path, 0.5, key=key)
        assert torch.equal(g.means, torch.from_numpy(data).double())
    assert targets.empirical(str(tmp_path / "a.npy")).has_point_masses


def test_empirical_of_safetensors(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    data = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    save_file({"x": data, "y": torch.ones(2, 1)}, tmp_path / "a.safetensors")
    assert torch.equal(targets.empirical(tmp_path / "a.safetensors", key="x").means, data.double())
    with pytest.raises(OptionError, match="x, y"):
        targets.empirical(tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-3])
    with pytest.raises(OptionError, match="cannot be read"):
        targets.empirical(tmp_path / "b.safetensors", key="x")


def test_safetensors_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    (tmp_path / "a.safetensors").write_bytes(b"")
    with pytest.raises(SdekitError, match=r"pip install 'sdekit\[hub\]'"):
        targets.empirical(tmp_path / "a.safetensors")


def test_empirical_refuses_files(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    np.save(tmp_path / "nan.npy", np.full((2, 2), np.nan))
    np.savez(tmp_path / "two.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "data.pt").write_bytes(b"x")
    for name, key, what in (
        ("none.npy", None, "no such file"),
        ("data.pt", None, "suffix '.pt'"),
        ("empty.npy", None, "cannot be read"),
        ("objects.npy", None, "cannot be read"),
        ("nan.npy", None, "NaN"),
        ("nan.npy", "x", "holds one array"),
        ("two.npz", None, "a, b"),
        ("two.npz", "c", "a, b"),
    ):
        with pytest.raises(OptionError, match=what):
            targets.empirical(tmp_path / name, key=key)
    with pytest.raises(OptionError, match="key"):
        targets.empirical(torch.ones(2, 2), key="x")
    with pytest.raises(InterfaceError, match="data"):
        targets.empirical(object())
    np.save(tmp_path / "complex.npy", np.ones((2, 2)) + 1j)
    with pytest.raises(InterfaceError, match="data: got ndarray of dtype complex128"):
        targets.empirical(tmp_path / "complex.npy")


def test_refusals() -> None:
    with pytest.raises(OptionError, match="components"):
        targets.ring(components=0)
    with pytest.raises(InterfaceError, match="components"):
        targets.ring(components=2.0)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="std"):
        targets.ring(std=-0.1)
    with pytest.raises(OptionError, match="covariance"):
        targets.random_mixture(2, 3, 0, covariance="round")
    with pytest.raises(ShapeError, match="data"):
        targets.empirical(torch.zeros(3))
    with pytest.raises(ShapeError, match="data"):
        targets.empirical(torch.zeros(0, 3))
