# shellcheck shell=bash
# A Docker engine for the length of a script. Sourced, not run, from the root of the checkout.

# ensure_engine: afterwards an engine with an image busybox:latest answers where DOCKER_HOST says, or at the
# usual socket. Where none answers, root starts one, whose end is that of the script: descriptor 8 holds it, so
# children that may outlive the script must be started with 8>&-. Fails, saying why, where there is none to be had.
ensure_engine() {
  engine_answers || start_engine || return 1
  .venv/bin/python scripts/lib/busybox_image.py
}

engine_answers() {
  .venv/bin/python -c 'import docker; docker.from_env(timeout=5).ping()' 2>/dev/null
}

start_engine() {
  if ! command -v dockerd >/dev/null; then
    printf 'No Docker engine answers, and none is installed (Debian: docker.io).\n' >&2
    return 1
  elif [[ $(id -u) != 0 ]]; then
    printf 'No Docker engine answers, and only root can start one: %s\n' 'sudo systemctl start docker' >&2
    return 1
  fi
  engine_folder=$(mktemp -d /tmp/bacalhau-engine.XXXXXX) # a socket's path must be short
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

# stop_engine: afterwards nothing of the engine that start_engine started is left.
stop_engine() {
  [[ ${engine_keeper:-} ]] || return 0
  exec 8>&-
  wait "$engine_keeper" || true
  unset engine_keeper
}
