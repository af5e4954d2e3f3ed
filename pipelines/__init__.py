"""Steps composed into pipelines, with the compiled YAML beside each."""
