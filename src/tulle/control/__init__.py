"""The control plane: gRPC services that stream what tulle.compile returns."""
