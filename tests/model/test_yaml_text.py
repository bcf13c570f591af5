from __future__ import annotations

import yaml

from bacalhau_p2p.model.yaml_text import yaml_text


def test_keys_keep_their_order_and_text_its_lines():
    value = {"Stdout": "42 degrees\nand falling\n", "Name": "größe", "Count": 1}
    assert yaml_text(value) == "Stdout: |\n  42 degrees\n  and falling\nName: größe\nCount: 1\n"
    assert yaml.safe_load(yaml_text(value)) == value
