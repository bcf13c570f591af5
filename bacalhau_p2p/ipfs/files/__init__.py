"""Between files and DAGs: import, export, unpack, read, TAR."""
