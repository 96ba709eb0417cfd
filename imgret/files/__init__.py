"""Arrays in files, files in parts, folders that are emptied."""
