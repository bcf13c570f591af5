from __future__ import annotations

import pytest
import trio

from bacalhau_p2p.transports.exclusive_use import ExclusiveUse


def test_a_second_task_is_refused_until_the_first_has_finished():
    sending, receiving = ExclusiveUse("send"), ExclusiveUse("receive")
    with sending:
        with pytest.raises(trio.BusyResourceError, match="another task uses this stream to send"), sending:
            pass
        with receiving:
            pass
    with pytest.raises(KeyError), sending:
        raise KeyError
    with sending:
        pass
