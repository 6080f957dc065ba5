"""Sphinx: `sphinx-build -W -n -b html docs build/docs`."""

import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # compiled.py

project = "lbcore"
copyright = "Apache License 2.0"
try:
    release = metadata.version("lbctl")
except metadata.PackageNotFoundError:  # built in place
    release = ""

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "compiled"]
exclude_patterns = ["examples"]
default_role = "literal"  # single backticks in docstrings are code

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
napoleon_use_ivar = True
napoleon_numpy_docstring = False

# Names of this project must resolve; those of Python and of other packages are left as they are.
nitpick_ignore_regex = [
    ("py:.*", r"(?!lbcore\b|lbctl\b).*"),
    ("py:class", r"lbctl\.config\.places\.Places|lbctl\.policy\.limiters\.Key"),  # internals of signatures
]

html_theme = "alabaster"
html_theme_options = {"description": "A TCP load balancer for zero-trust networks"}
html_show_sourcelink = False
