"""What several of the tests with faults need."""

import socket

import pytest
import torch


@pytest.fixture(scope="module")
def processes():
    """A group of this process alone, which the writer of parts asks for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    yield torch.distributed.group.WORLD
    torch.distributed.destroy_process_group()
