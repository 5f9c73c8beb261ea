"""Threads that sleep while they wait: the tests share their cores with whatever else runs."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
