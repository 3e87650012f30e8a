"""`python -m tests.node`: install the packages."""

from benchmarks.node import install
from tests.node import FOLDER, HERE

install(HERE, FOLDER)
