import torch

from nas.seeding import derive
from nas.torch_seeding import generator


def test_a_generator_is_a_function_of_seed_and_path() -> None:
    first = torch.rand(4, generator=generator(3, "augment", 7))
    assert torch.equal(first, torch.rand(4, generator=generator(3, "augment", 7)))
    for other in (generator(4, "augment", 7), generator(3, "augment", 8), generator(3, "epoch", 7)):
        assert not torch.equal(first, torch.rand(4, generator=other))


def test_the_seed_is_the_derived_one_and_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    assert generator(3, "augment", 7).initial_seed() == derive(3, "augment", 7)
    assert torch.equal(torch.get_rng_state(), state)
