"""What a message to a person must be: one line, short, with the value, what is legal, the fix."""

import pytest


def raises_in_one_line(*parts, call):
    with pytest.raises(ValueError) as raised:
        call()
    message = str(raised.value)
    assert [part for part in parts if part not in message] == [], message
    assert "\n" not in message
    assert len(message) < 260
