"""`python -m closure_jax EXPERIMENT.py[:preset] ...` and `python -m closure_jax COMMAND ...`."""

import sys

from closure_jax.commands import main

if __name__ == "__main__":
    sys.exit(main())
