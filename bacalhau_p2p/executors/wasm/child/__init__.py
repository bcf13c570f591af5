"""The program that runs WebAssembly, in its own processes. The node starts it and never imports it.

It uses only the standard library and wasmtime, so that it starts fast and stays small, and has one thread,
so that it may fork. `processes` describes its messages.
"""
