"""Side-by-side measurement of this project and its peers: `python -m bench`."""
