"""Kubernetes' protobuf: Go clients, kubectl among them, send built-in kinds in it. Requests are read, answers stay JSON."""
