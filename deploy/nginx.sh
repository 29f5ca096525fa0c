set -eu

# Makes nginx resolve service names with the containers' name server at run time. Otherwise it would keep
# the addresses from its start, and lose services that are recreated.
awk '$1 == "nameserver" { print "resolver " $2 " valid=5s;"; exit }' /etc/resolv.conf \
    > /tmp/resolver.conf

# The page sets its policy in a meta element, which does not support frame-ancestors.
policy=$(sed -n 's/.*<meta http-equiv="Content-Security-Policy" content="\([^"]*\)".*/\1/p' \
    /usr/share/musiclab/index.html | sed "s/&#39;/'/g")
if [ -z "$policy" ]; then
    echo "index.html has no Content-Security-Policy; rebuild the page" >&2
    exit 1
fi
echo "add_header Content-Security-Policy \"$policy; frame-ancestors 'none'\" always;" \
    > /tmp/policy.conf

exec nginx -g 'daemon off;'
