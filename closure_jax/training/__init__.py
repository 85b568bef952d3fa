"""Training: programs and their phases, pure steps, the resumable loop, what runs share."""

from closure_jax import config as config  # the schema names programs, which are above it: whole before they are
