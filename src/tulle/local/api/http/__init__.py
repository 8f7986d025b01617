"""The HTTPS face of the API: URLs, media types, streams; what they mean is decided elsewhere."""
