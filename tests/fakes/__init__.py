"""Stand-ins for what is outside: a scripted Kubernetes API, and builders of the objects in it."""
