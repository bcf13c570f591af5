"""The program in whose processes WebAssembly runs. The node starts it and never imports it.

It uses only the standard library and wasmtime, so that it starts fast and stays small, and has one thread,
so that it may fork. `processes` describes its messages.
"""
