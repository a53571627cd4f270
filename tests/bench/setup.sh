# What the measurements share: a release build, a backend, a gateway; sourced, not run.
# Everything started here is ended, by its id, when the script ends.

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --quiet --release --bin holdfast --example load
holdfast=$target/release/holdfast
load=$target/release/examples/load
work=$(mktemp -d /tmp/hfbench.XXXXXX)
started=()

finish() {
  local pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT
ulimit -n "$(ulimit -Hn)"

free_port() {
  python3 -c 'import random, socket
while True:
    port = random.randrange(10000, 30000)
    with socket.socket() as s:
        try: s.bind(("0.0.0.0", port))
        except OSError: continue
    print(port); break'
}

# start_backend CORES: an echo server; sets backend_port.
start_backend() {
  backend_port=$(free_port)
  mkfifo "$work/backend.stdin"
  taskset -c "$1" "$holdfast" demo-backend --name bench --listen "127.0.0.1:$backend_port" \
    <"$work/backend.stdin" >"$work/backend.log" 2>&1 &
  started+=($!)
  exec 9>"$work/backend.stdin" # it ends with its standard input
  wait_for grep -q . "$work/backend.log"
}

# start_gateway CORES: one listener, one thread; sets gateway_port, worker_pid.
start_gateway() {
  gateway_port=$(free_port)
  local gateway=/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/applicationGateways/bench
  cat >"$work/gateway.json" <<JSON
{"name": "bench", "properties": {
  "holdfast": {"threads": 1, "drainTimeoutInSec": 1},
  "frontendIPConfigurations": [{"name": "f", "holdfast": {"address": "127.0.0.1"}, "properties": {}}],
  "frontendPorts": [{"name": "p", "properties": {"port": $gateway_port}}],
  "backendAddressPools": [{"name": "b", "properties": {"backendAddresses": [{"ipAddress": "127.0.0.1"}]}}],
  "probes": [{"name": "b", "properties": {"protocol": "Http", "host": "localhost", "path": "/healthz",
    "interval": 30, "timeout": 5, "unhealthyThreshold": 3}}],
  "backendHttpSettingsCollection": [{"name": "b", "properties": {"port": $backend_port, "protocol": "Http",
    "requestTimeout": 3600, "probe": {"id": "$gateway/probes/b"}}}],
  "httpListeners": [{"name": "l", "properties": {"protocol": "Http",
    "frontendIPConfiguration": {"id": "$gateway/frontendIPConfigurations/f"},
    "frontendPort": {"id": "$gateway/frontendPorts/p"}}}],
  "requestRoutingRules": [{"name": "r", "properties": {"ruleType": "Basic", "priority": 1,
    "httpListener": {"id": "$gateway/httpListeners/l"},
    "backendAddressPool": {"id": "$gateway/backendAddressPools/b"},
    "backendHttpSettings": {"id": "$gateway/backendHttpSettingsCollection/b"}}}]
}}
JSON
  export HOLDFAST_ADMIN=unix:$work/r/admin.sock
  local status_port
  status_port=$(free_port)
  taskset -c "$1" "$holdfast" run --config "$work/gateway.json" --runtime-dir "$work/r" --state-dir "$work/s" \
    --status-listen "127.0.0.1:$status_port" >"$work/gateway.log" 2>&1 &
  started+=($!)
  wait_for curl -sf -o "$work/ready" "http://127.0.0.1:$status_port/readyz"
  worker_pid=$("$holdfast" status --json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["listeners"][0]["workers"][0]["pid"])')
}

# wait_for COMMAND…: until it succeeds, 20 seconds at most.
wait_for() {
  local end=$((SECONDS + 20))
  until "$@" 2>/dev/null; do
    if ((SECONDS > end)); then
      echo "waited in vain for: $*" >&2
      tail -n 20 "$work"/*.log >&2
      exit 1
    fi
    read -rt 0.05 <> <(:) || true
  done
}

machine() {
  printf '%s, %s CPUs, kernel %s, %s\n' "$(sed -n 's/^model name[^:]*: //p;T;q' /proc/cpuinfo)" "$(nproc)" \
    "$(uname -r)" "$("$holdfast" --version)"
}
