"""Kubernetes read into one typed World.

`objects`, `policy_objects`, `kinds` and `words` say what is read, `yaml` how manifests are; `reflector` is the pure
list-and-watch machine, `watching` its shell, `client` the port to the API; `world` holds the result with its indexes;
`lease` elects who may write.
This package never decides what a proxy does.
"""
