"""How a job's task is run: Docker, WebAssembly, or not at all."""
