# shellcheck shell=bash
# Starts a Docker engine for the duration of a script. Source it from the root of the checkout.

# ensure_engine: makes sure that an engine with the image busybox:latest runs at DOCKER_HOST or the default socket.
# If there is none, root starts one. It ends with the script, because file descriptor 8 keeps it alive; so start
# children that may outlive the script with 8>&-. Fails with a message if there is no engine and none can start.
ensure_engine() {
  engine_answers || start_engine || return 1
  .venv/bin/python scripts/lib/busybox_image.py
}

engine_answers() {
  .venv/bin/python -c 'import docker; docker.from_env(timeout=5).ping()' 2>/dev/null
}

start_engine() {
  if ! command -v dockerd >/dev/null; then
    printf 'No Docker engine is running, and none is installed (Debian: docker.io).\n' >&2
    return 1
  elif [[ $(id -u) != 0 ]]; then
    printf 'No Docker engine is running, and only root can start one: %s\n' 'sudo systemctl start docker' >&2
    return 1
  fi
  engine_folder=$(mktemp -d /tmp/bacalhau-engine.XXXXXX) # the path of a socket must be short
  exec 8> >(exec setsid bash scripts/lib/keep_engine.sh "$engine_folder" >/dev/null 2>&1)
  engine_keeper=$!
  export DOCKER_HOST=unix://$engine_folder/docker.sock
  until [[ -S $engine_folder/docker.sock ]] && engine_answers; do
    if ! kill -0 "$engine_keeper" 2>/dev/null; then
      printf 'The Docker engine did not start.\n' >&2
      unset DOCKER_HOST
      return 1
    fi
    sleep 0.1
  done
  printf 'Started a Docker engine; it ends with this script.\n' >&2
}

# stop_engine: stops the engine that start_engine started, and waits until nothing of it is left.
stop_engine() {
  [[ ${engine_keeper:-} ]] || return 0
  exec 8>&-
  wait "$engine_keeper" || true
  unset engine_keeper
}
