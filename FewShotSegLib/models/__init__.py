"""Foundation models: registry, downloads, networks."""
