"""Between files and DAGs: import, export, unpack, read, CAR and TAR streams."""
