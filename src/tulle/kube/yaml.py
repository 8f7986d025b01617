"""YAML as Kubernetes reads it: safe, and without dates, for 2024-01-01 is a string there."""

import yaml

__all__ = ["Loader"]


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's safe loader (the C one where it is built) in which what looks like a date stays text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the class attribute that PyYAML looks for
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
