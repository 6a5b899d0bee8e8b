"""Where fields go and come from. Memory and the run directory keep one contract (tests/store_contract.py)."""
