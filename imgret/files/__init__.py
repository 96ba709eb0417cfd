"""Files on disk: memory-mapped arrays, files split into parts, temporary folders."""
