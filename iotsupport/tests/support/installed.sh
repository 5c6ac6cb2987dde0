# What is tried after the commands of docs/install.md, on the machine that they have set up: see new_debian.py.
cd /opt/iotsupport
name=iot.example.com
manage="runuser -u iotsupport -- .venv/bin/python manage.py"
ask="curl --fail --silent --show-error --cacert /etc/ssl/certs/$name.pem --resolve $name:443:127.0.0.1"

: 'wait for something, for ten seconds'
until_true() {
  { set +x; } 2>/dev/null
  for _ in $(seq 100); do if "$@" >/dev/null; then set -x; return; fi; sleep 0.1; done
  false
}
refused() { if "$@"; then false; fi; }
logged() { journalctl --no-pager --boot --unit iotsupport.service | grep "$1"; }
main_process() { systemctl show --property MainPID --value iotsupport.service; }

: 'people reach the sign-in over HTTPS, and are sent there from port 80'
$ask "https://$name/admin/login/" | grep --quiet 'name="password"'
$ask "http://$name/admin/" --resolve "$name:80:127.0.0.1" --write-out '%{http_code} %{redirect_url}\n' \
  | grep --quiet "308 https://$name/admin/"

: 'a board downloads over plain HTTP, and nginx tells of it through the socket that systemd owns'
token=$($manage create_api_token admin)
current() { $ask --header "Authorization: Bearer $token" "https://$name/devices/aa-bb-cc-dd-ee-ff" | grep '"state": *"current"'; }
until_true current
# The upgrade has closed the socket: each of nginx's workers loses the first one.
told() {
  curl --fail --silent --show-error http://127.0.0.1/configs/aa-bb-cc-dd-ee-ff.json | grep --quiet Kitchen
  curl --silent http://127.0.0.1:8000/metrics | grep 'iot_checkins_total{way="nginx"}' | grep --invert-match ' 0.0$'
}
until_true told
test "$(stat --format '%U:%G %a' /var/lib/iotsupport/checkins.sock)" = iotsupport:www-data\ 660

: 'nginx may read what devices download, and nobody else the rest'
runuser -u www-data -- cat /var/lib/iotsupport/configs/aa-bb-cc-dd-ee-ff.json
for file in /var/lib/iotsupport/db.sqlite3 /var/lib/iotsupport/secret_key /etc/iotsupport.env; do
  refused runuser -u www-data -- cat "$file"
done
refused runuser -u nobody -- ls /var/lib/iotsupport

: 'the server writes to its directory alone'
refused nsenter --target "$(main_process)" --mount touch /opt/iotsupport/x
grep --quiet '^Seccomp:.*2' "/proc/$(main_process)/status"
grep --quiet '^CapBnd:.*0000000000000000' "/proc/$(main_process)/status"
systemd-analyze security iotsupport.service | tail --lines 1

: 'housekeeping runs by its unit, and says what it did'
systemctl start iotsupport-housekeeping.service
journalctl --no-pager --unit iotsupport-housekeeping.service | grep 'ended sessions'
systemctl list-timers --no-pager | grep iotsupport-housekeeping.timer

: 'a reload replaces the process, and nobody is refused meanwhile'
before=$(main_process)
notes=$(mktemp -d)
(
  set +x
  until test -e "$notes/reloaded"; do
    curl --fail --silent --show-error --output /dev/null http://127.0.0.1:8000/health || touch "$notes/refused"
  done
) &
echo TIME_ZONE=Europe/Amsterdam >> /etc/iotsupport.env
systemctl reload iotsupport.service
replaced() { test "$(main_process)" != "$before" && test ! -e "/proc/$before"; }
until_true replaced
until_true logged "Master has been promoted"
systemctl is-active iotsupport.service
touch "$notes/reloaded"
wait $!
test ! -e "$notes/refused"

: 'a reload with what cannot start leaves the old one'
before=$(main_process)
mv gunicorn.conf.py kept.py
echo 'raise SystemExit("broken")' > gunicorn.conf.py
systemctl reload iotsupport.service
until_true logged broken
mv kept.py gunicorn.conf.py
test "$(main_process)" = "$before"
$ask "https://$name/health"

: 'killed, it is there again; stopped, boards go on downloading and the admin says that it is away'
kill -9 "$(main_process)"
restarted() { test "$(systemctl show --property NRestarts --value iotsupport.service)" = 1 && $ask "https://$name/health"; }
until_true restarted
systemctl stop iotsupport-checkins.socket iotsupport.service
curl --fail --silent --show-error http://127.0.0.1/configs/aa-bb-cc-dd-ee-ff.json
test "$(curl --silent --output /dev/null --write-out '%{http_code}' http://127.0.0.1/health)" = 503
test "$(systemctl is-active iotsupport.service)" = inactive
systemctl start iotsupport-checkins.socket iotsupport.service
$ask "https://$name/health"
systemctl --no-pager --failed
test -z "$(systemctl --failed --quiet --no-legend)"
