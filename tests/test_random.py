"""Streams of random keys: every draw of a run has a key of its own."""

import itertools

import jax
import numpy as np
import pytest

from closure_jax import random


def numbers(key: jax.Array) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_all_first_level_streams_of_a_run_differ():
    seed, phases = 0, ("autoencoder_vorticity", "autoencoder_closure", "transport", "joint", "online")
    streams = {name: random.stream(seed, name) for name in random.STREAMS}
    streams |= {
        f"{name}/{phase}": random.stream(seed, name, phase)
        for name, phase in itertools.product(("initialise", "train", "validate"), phases)
    }
    streams |= {f"trajectory/{i}": random.stream(seed, random.TRAJECTORY, i) for i in range(200)}
    streams |= {"seed": jax.random.key(seed), "trajectory": random.stream(seed, random.TRAJECTORY)}
    found = {name: numbers(key) for name, key in streams.items()}
    same = [(a, b) for a, b in itertools.combinations(found, 2) if found[a] == found[b]]
    assert same == [("seed", "trajectory")]


def test_members_of_a_stream_are_in_no_other():
    # split(key, n)[i] and fold_in(key, i) are the same key: streams that differ by a small number alone would meet
    found = [numbers(random.stream(0, name, i)) for name in (*random.STREAMS, random.TRAJECTORY) for i in range(50)]
    assert len(set(found)) == len(found)


def test_data_keep_the_keys_of_files_that_exist():
    assert numbers(random.stream(3, random.TRAJECTORY, 5)) == numbers(jax.random.fold_in(jax.random.key(3), 5))


def test_an_unknown_stream_is_a_mistake_of_the_code():
    with pytest.raises(KeyError, match="stream 'smples'"):
        random.stream(0, "smples")


def test_a_draw_is_jax_s_own():
    key = jax.random.key(1)
    np.testing.assert_array_equal(random.normal(key, (3, 4, 5)), jax.random.normal(key, (3, 4, 5)))
