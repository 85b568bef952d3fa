"""`python -m closure_jax EXPERIMENT.py[:preset] ...` and `python -m closure_jax COMMAND ...`."""

from closure_jax.commands import cli, main

if __name__ == "__main__":
    cli.leave(main())
