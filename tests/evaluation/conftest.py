"""Random retrieval problems that hit the corners of the definitions."""

import pytest
from evaluation_oracles import random_problem


@pytest.fixture(params=range(40))
def problem(request):
    return random_problem(request.param)
