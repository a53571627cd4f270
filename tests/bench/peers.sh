# nginx, HAProxy, Sozu and Pingora as peers of the measurements: plain tunnels and TLS, one thread each, on one core; sourced after setup.sh.
# A session of its own each, as Holdfast's worker has: the kernel shares cores among sessions (autogroup).
PATH=$PATH:/usr/sbin
sozu=${SOZU:-sozu} # no package of Debian's, so it may be anywhere

# have_peer PROGRAM: says which version there is, or that it is left out.
have_peer() {
  local program=$1 version=-v
  [[ $1 != sozu ]] || program=$sozu version=--version
  if [[ $1 == pingora ]]; then
    pingora=$target/pingora/release/bench-pingora
    install_packages cc:gcc cmake:cmake pkg-config:pkg-config openssl:libssl-dev # some minutes to build, once
    cargo build --quiet --locked --release --manifest-path tests/bench/pingora/Cargo.toml --target-dir "$target/pingora" || return 1
    cargo tree --quiet --manifest-path tests/bench/pingora/Cargo.toml --depth 0 --package pingora | sed -n 1p
    return
  fi
  if ! command -v "$program" >/dev/null; then
    echo "LEFT OUT: $program is not installed"
    [[ $1 != sozu ]] || echo "  cargo install --locked sozu (it needs protoc and some minutes), or SOZU=/path/to/sozu"
    return 1
  fi
  "$program" $version 2>&1 | sed -n 1p
}

# start_nginx CORE [BUFFER_KIB]: sets nginx_pid, nginx_port, nginx_tls_port. It sizes a tunnel's two buffers by proxy_buffer_size.
start_nginx() {
  nginx_port=$(free_port)
  nginx_tls_port=$(free_port)
  local own=$work/nginx.$nginx_port buffer=
  [[ -z ${2:-} ]] || buffer="proxy_buffer_size ${2}k; proxy_buffers 8 ${2}k; proxy_busy_buffers_size ${2}k;"
  cat >"$own.conf" <<CONF
daemon off; master_process off; worker_processes 1; pid $own.pid; error_log $own.log;
events { worker_connections 20000; }
http {
  access_log off; client_body_temp_path $own.n1; proxy_temp_path $own.n2; fastcgi_temp_path $own.n3;
  uwsgi_temp_path $own.n4; scgi_temp_path $own.n5;
  upstream backend { server 127.0.0.1:$backend_port; keepalive 256; keepalive_requests 100000000; }
  map \$http_upgrade \$connection_upgrade { default upgrade; '' ''; }
  server {
    listen 127.0.0.1:$nginx_port;
    listen 127.0.0.1:$nginx_tls_port ssl http2; keepalive_requests 100000000; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate $certificate; ssl_certificate_key $work/site.key;
    location / {
      $buffer
      proxy_pass http://backend; proxy_http_version 1.1; proxy_read_timeout 1h;
      proxy_set_header Upgrade \$http_upgrade; proxy_set_header Connection \$connection_upgrade; } }
}
CONF
  setsid taskset -c "$1" nginx -e "$own.log" -c "$own.conf" >>"$own.log" 2>&1 &
  nginx_pid=$!
  started+=("$nginx_pid")
  wait_for curl -sf -o "$work/ready" "http://127.0.0.1:$nginx_port/healthz"
}

# start_haproxy CORE [BUFFER_KIB]: sets haproxy_pid, haproxy_port, haproxy_tls_port.
start_haproxy() {
  haproxy_port=$(free_port)
  haproxy_tls_port=$(free_port)
  local own=$work/haproxy.$haproxy_port buffer=
  [[ -z ${2:-} ]] || buffer="tune.bufsize $(($2 * 1024))"
  cat "$certificate" "$work/site.key" >"$own.pem"
  cat >"$own.cfg" <<CONF
global
  nbthread 1
  maxconn 8000
  $buffer
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
listen bench
  bind 127.0.0.1:$haproxy_port
  bind 127.0.0.1:$haproxy_tls_port ssl crt $own.pem alpn h2,http/1.1
  server backend 127.0.0.1:$backend_port
CONF
  setsid taskset -c "$1" haproxy -db -f "$own.cfg" >"$own.log" 2>&1 &
  haproxy_pid=$!
  started+=("$haproxy_pid")
  wait_for curl -sf -o "$work/ready" "http://127.0.0.1:$haproxy_port/healthz"
}

# start_sozu CORE [BUFFER_KIB]: sets sozu_pid (its one worker, not the process that keeps it), sozu_port, sozu_tls_port.
start_sozu() {
  sozu_port=$(free_port)
  sozu_tls_port=$(free_port)
  local own=$work/sozu.$sozu_port buffer=
  [[ -z ${2:-} ]] || buffer="buffer_size = $(($2 * 1024))"
  cat >"$own.toml" <<CONF
command_socket = "$own.sock"
log_level = "error"
log_target = "stdout"
worker_count = 1
worker_automatic_restart = false
front_timeout = 3600
back_timeout = 3600
$buffer
[[listeners]]
protocol = "http"
address = "127.0.0.1:$sozu_port"
[[listeners]]
protocol = "https"
address = "127.0.0.1:$sozu_tls_port"
[clusters.bench]
protocol = "http"
frontends = [
  { address = "127.0.0.1:$sozu_port", hostname = "localhost" },
  { address = "127.0.0.1:$sozu_tls_port", hostname = "localhost", certificate = "$certificate", key = "$work/site.key", certificate_chain = "$certificate" },
]
backends = [{ address = "127.0.0.1:$backend_port" }]
CONF
  setsid taskset -c "$1" "$sozu" -c "$own.toml" start >"$own.log" 2>&1 &
  local keeper=$!
  started+=("$keeper")
  wait_for curl -sf -o "$work/ready" "http://localhost:$sozu_port/healthz"
  sozu_pid=$(pgrep -P "$keeper")
  started+=("$sozu_pid")
}

# start_pingora CORE: sets pingora_pid, pingora_port, pingora_tls_port. Built from tests/bench/pingora by have_peer.
start_pingora() {
  pingora_port=$(free_port)
  pingora_tls_port=$(free_port)
  setsid taskset -c "$1" "$pingora" "$pingora_port" "$pingora_tls_port" "$backend_port" "$certificate" "$work/site.key" \
    >"$work/pingora.log" 2>&1 &
  pingora_pid=$!
  started+=("$pingora_pid")
  wait_for curl -sf -o "$work/ready" "http://127.0.0.1:$pingora_port/healthz"
}
