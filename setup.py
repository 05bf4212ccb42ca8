"""The metadata is in pyproject.toml, where setuptools reads it; this file serves the tools that still call it."""

from setuptools import setup

setup()
