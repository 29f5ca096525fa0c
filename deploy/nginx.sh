# nginx asks the containers' own name server each time: it would otherwise keep the address that a
# service had when nginx started, and lose one that was built anew.
set -eu
awk '$1 == "nameserver" { print "resolver " $2 " valid=5s;"; exit }' /etc/resolv.conf \
    > /tmp/resolver.conf
exec nginx -g 'daemon off;'
