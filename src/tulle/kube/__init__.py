"""Kubernetes read into one typed World: views, reflector, indexes."""
