"""Who asks, and may they: certificates, tokens, RBAC."""
