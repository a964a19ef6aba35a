"""The generated code of the API `claudemesh.v1`."""
