"""The version of fastopt, here because files and reports name it and cannot import the package above them."""

__version__ = "0.1.0"
