"""HLFD, its ablations and its baselines under the contract of all methods."""

from __future__ import annotations

from tests.contracts.methods import MethodContract


class TestHLFD(MethodContract):
    name = "hlfd"


class TestHLFDPaper(MethodContract):
    name = "hlfd_paper"


class TestHIFD(MethodContract):
    name = "hifd"


class TestIFD(MethodContract):
    name = "ifd"


class TestDeep(MethodContract):
    name, same_level = "deep", True


class TestSKD(MethodContract):
    name, same_level = "skd", True


class TestAT(MethodContract):
    name, same_level = "at", True


class TestHLFDPublished(MethodContract):
    name = "hlfd_published"
