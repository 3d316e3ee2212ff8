"""Data as strangers have them."""

DATA = {}
