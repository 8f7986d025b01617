"""The laptop: embedded Kubernetes API, node agent, networks, DNS."""
