"""What `.ci/sanitize` needs beside the tests: which leaks count, and which races are none."""
