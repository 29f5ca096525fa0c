set -eu

# nginx asks the containers' own name server each time: it would otherwise keep the address that a
# service had when nginx started, and lose one that was built anew.
awk '$1 == "nameserver" { print "resolver " $2 " valid=5s;"; exit }' /etc/resolv.conf \
    > /tmp/resolver.conf

# The page states its policy in a meta element, which cannot forbid frames.
policy=$(sed -n 's/.*<meta http-equiv="Content-Security-Policy" content="\([^"]*\)".*/\1/p' \
    /usr/share/musiclab/index.html | sed "s/&#39;/'/g")
if [ -z "$policy" ]; then
    echo "index.html states no Content-Security-Policy; build the page anew" >&2
    exit 1
fi
echo "add_header Content-Security-Policy \"$policy; frame-ancestors 'none'\" always;" \
    > /tmp/policy.conf

exec nginx -g 'daemon off;'
