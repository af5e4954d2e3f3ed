"""Compiles the modules whose paths stand on stdin, without a time in the bytecode."""

import py_compile
import re
import sys
from pathlib import Path

FOR_ANOTHER_PYTHON = re.compile(r"py3\d+")
"""In the name of a module whose syntax a package does not promise for every Python, such as py312_intrinsics.py."""

for path in sorted(Path(line) for line in sys.stdin.read().splitlines()):
    try:
        py_compile.compile(str(path), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except py_compile.PyCompileError:
        if not FOR_ANOTHER_PYTHON.search(path.name):
            raise
        print(f"{path} is for another Python and stays uncompiled.")
