"""The protocols. Each only translates between the wire and `plane.predict`."""
