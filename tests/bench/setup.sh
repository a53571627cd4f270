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

# install_packages PROGRAM:PACKAGE…: what is missing, by Debian's package manager. Its daemons are not wanted, only the programs.
install_packages() {
  local missing=() pair
  for pair in "$@"; do command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}"); done
  ((${#missing[@]})) || return 0
  if [[ ${HOLDFAST_TEST_INSTALL:-yes} == no ]] || ! command -v apt-get >/dev/null; then
    echo "missing, and not installed here: ${missing[*]}" >&2
    return 0
  fi
  local as_root=()
  ((EUID == 0)) || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -o DPkg::Lock::Timeout=300 \
    install -y -qq --no-install-recommends "${missing[@]}" >&2
}

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

# start_gateway CORES: an http and an https listener, each a worker with one thread of each kind; sets gateway_port,
# worker_pid, tls_port, tls_worker_pid, status_port, and certificate (a file).
start_gateway() {
  gateway_port=$(free_port)
  tls_port=$(free_port)
  certificate=$work/site.pem
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 2 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
    -keyout "$work/site.key" -out "$certificate" 2>"$work/openssl.log"
  local gateway=/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/applicationGateways/bench
  rule() { # NAME PRIORITY
    printf '{"name": "%s", "properties": {"ruleType": "Basic", "priority": %s,
      "httpListener": {"id": "%s/httpListeners/%s"}, "backendAddressPool": {"id": "%s/backendAddressPools/b"},
      "backendHttpSettings": {"id": "%s/backendHttpSettingsCollection/b"}}}' "$1" "$2" "$gateway" "$1" "$gateway" "$gateway"
  }
  cat >"$work/gateway.json" <<JSON
{"name": "bench", "properties": {
  "enableHttp2": true,
  "holdfast": {"threads": 1, "drainTimeoutInSec": 1},
  "frontendIPConfigurations": [{"name": "f", "holdfast": {"address": "127.0.0.1"}, "properties": {}}],
  "frontendPorts": [{"name": "plain", "properties": {"port": $gateway_port}}, {"name": "tls", "properties": {"port": $tls_port}}],
  "sslCertificates": [{"name": "c", "properties": {},
    "holdfast": {"certificateFile": "$certificate", "privateKeyFile": "$work/site.key"}}],
  "backendAddressPools": [{"name": "b", "properties": {"backendAddresses": [{"ipAddress": "127.0.0.1"}]}}],
  "probes": [{"name": "b", "properties": {"protocol": "Http", "host": "localhost", "path": "/healthz",
    "interval": 30, "timeout": 5, "unhealthyThreshold": 3}}],
  "backendHttpSettingsCollection": [{"name": "b", "properties": {"port": $backend_port, "protocol": "Http",
    "requestTimeout": 3600, "probe": {"id": "$gateway/probes/b"}}}],
  "httpListeners": [
    {"name": "plain", "properties": {"protocol": "Http",
      "frontendIPConfiguration": {"id": "$gateway/frontendIPConfigurations/f"},
      "frontendPort": {"id": "$gateway/frontendPorts/plain"}}},
    {"name": "tls", "properties": {"protocol": "Https", "sslCertificate": {"id": "$gateway/sslCertificates/c"},
      "frontendIPConfiguration": {"id": "$gateway/frontendIPConfigurations/f"},
      "frontendPort": {"id": "$gateway/frontendPorts/tls"}}}],
  "requestRoutingRules": [$(rule plain 1), $(rule tls 2)]
}}
JSON
  export HOLDFAST_ADMIN=unix:$work/r/admin.sock
  status_port=$(free_port)
  start_supervisor "$1"
  worker_pid=$(worker_of "$gateway_port")
  tls_worker_pid=$(worker_of "$tls_port")
}

# start_supervisor CORES: the gateway's first process, and again after its death; sets supervisor_pid.
start_supervisor() {
  taskset -c "$1" "$holdfast" run --config "$work/gateway.json" --runtime-dir "$work/r" --state-dir "$work/s" \
    --status-listen "127.0.0.1:$status_port" >>"$work/gateway.log" 2>&1 8>&- 9>&- &
  supervisor_pid=$!
  started+=("$supervisor_pid")
  wait_for curl -sf -o "$work/ready" "http://127.0.0.1:$status_port/readyz"
}

# worker_of PORT: the process that serves it.
worker_of() {
  "$holdfast" status --json | python3 -c 'import json, sys
for listener in json.load(sys.stdin)["listeners"]:
    if listener["address"].endswith(":" + sys.argv[1]): print(listener["workers"][0]["pid"])' "$1"
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
