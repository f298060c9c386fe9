"""The configuration: YAML with every default, one typed schema, one composer."""
