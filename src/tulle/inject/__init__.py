"""The sidecar injector: a pure function from (pod, namespace, config) to the pod with its proxy."""
