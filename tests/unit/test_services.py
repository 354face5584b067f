"""Every method of the protos is there."""

import pytest
from privyseald.rpc.registration import SERVICERS


@pytest.mark.parametrize("servicer", SERVICERS, ids=lambda kind: kind.__name__)
def test_no_method_is_left_to_the_generated_base(servicer):
    base = servicer.__mro__[1]
    assert base.__module__.startswith("privyseal.v1.")
    methods = [name for name in vars(base) if not name.startswith("_")]
    assert methods
    assert [name for name in methods if name not in vars(servicer)] == []
