"""`python -m closure_jax`."""

import sys

from closure_jax.main import main

if __name__ == "__main__":
    sys.exit(main())
