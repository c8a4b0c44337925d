"""The flag --profile A,B."""

import pytest

from gradloop.cli.config import parse_profile
from gradloop.engine import ConfigError


def test_the_flag_is_read_strictly():
    assert parse_profile("20,40") == (20, 40)
    assert parse_profile(" 7 , 7 ", 7) == (7, 7)
    for text in ("x,3", "5,2", "0,2", "3", "1,2,3", "-1,4", "1.5,2", ""):
        with pytest.raises(ConfigError, match=r"must be A,B.*20,40"):
            parse_profile(text)
    with pytest.raises(ConfigError, match="this run has 8 steps: name steps from 1 to 8"):
        parse_profile("3,9", 8)
