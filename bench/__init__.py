"""Side-by-side measurement of this project and its peers: `python -m bench`.

What compiles the tests' own modules compiles the bench's too, and the clients that misbehave are theirs
(tests/kit).
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
