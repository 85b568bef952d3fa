"""`python -m closure_jax`."""

import sys

from closure_jax.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
