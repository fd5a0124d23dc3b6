"""Files: documents and folders written whole or not at all, versioned and checked on reading."""
