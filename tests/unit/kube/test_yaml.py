"""What a manifest's author typed is what Kubernetes would read."""

import yaml

from tulle.kube.yaml import Loader


def test_a_date_stays_text_and_other_words_are_read_as_ever() -> None:
    text = "{day: 2024-01-01, moment: 2024-01-01T10:00:00Z, on: true, count: 3, name: web}"
    assert yaml.load(text, Loader) == {
        "day": "2024-01-01",
        "moment": "2024-01-01T10:00:00Z",
        True: True,
        "count": 3,
        "name": "web",
    }


def test_only_plain_values_are_made() -> None:
    try:
        yaml.load("!!python/object/apply:os.getcwd []", Loader)
    except yaml.constructor.ConstructorError:
        return
    raise AssertionError("a tag made an object")
