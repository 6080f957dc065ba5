"""Fuzz targets: what reads text and bytes that others wrote.

`python -m fuzz TARGET` searches with atheris (libFuzzer); `test_corpus.py` replays what was found.
"""
