"""The metadata is in pyproject.toml, but for the licence; also for the tools that still call this file."""

from setuptools import setup

setup(license="Apache-2.0")
