"""Programs that pods of the tests run: a server that speaks every protocol the mesh carries, and its client."""
