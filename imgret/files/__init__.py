"""Files on disk: memory-mapped arrays and temporary folders."""
