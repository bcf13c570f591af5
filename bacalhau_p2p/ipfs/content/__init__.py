"""The content of one node: everything that the node does with files, folders and their CIDs."""
