"""What a redis-py user expects to work, over both protocol versions.

usage: tour.py HOST PORT
"""

import sys
import time

import redis


def check(what, got, expected):
    if got != expected:
        raise SystemExit(f"{what}: got {got!r}, expected {expected!r}")


def refused(what, call):
    try:
        got = call()
    except redis.ResponseError as error:
        return str(error)
    raise SystemExit(f"{what}: got {got!r} instead of an error")


def strings(r):
    check("set", r.set("s", b"\x00\r\n\xff"), True)
    check("get", r.get("s"), b"\x00\r\n\xff")
    check("set nx", r.set("s", "other", nx=True), None)
    check("set xx get", r.set("s", "v", xx=True, get=True), b"\x00\r\n\xff")
    check("append", r.append("s", "w"), 2)
    check("getrange", r.getrange("s", 0, -1), b"vw")
    check("setrange", r.setrange("s", 4, "x"), 5)
    check("strlen", r.strlen("s"), 5)
    check("getdel", r.getdel("s"), b"vw\x00\x00x")
    check("get missing", r.get("s"), None)
    check("mset", r.mset({"a": 1, "b": 2}), True)
    check("mget", r.mget("a", "b", "none"), [b"1", b"2", None])
    check("incrby", r.incrby("a", 41), 42)
    check("decr", r.decr("b"), 1)
    refused("incr of text", lambda: (r.set("t", "text"), r.incr("t"))[1])


def keys(r):
    check("exists", r.exists("a", "b", "none"), 2)
    check("type", r.type("a"), b"string")
    check("rename", r.rename("a", "c"), True)
    check("copy", r.copy("c", "a"), True)
    check("delete", r.delete("a", "c", "none"), 2)
    r.mset({f"scan:{i}": i for i in range(500)})
    check("scan", len(set(r.scan_iter(match="scan:*", count=50))), 500)
    check("keys", len(r.keys("scan:1*")), 111)
    check("unlink", r.unlink(*[f"scan:{i}" for i in range(500)]), 500)


def expiry(r):
    r.set("e", "v", px=150)
    pttl = r.pttl("e")
    if not 0 < pttl <= 150:
        raise SystemExit(f"pttl: {pttl}")
    # Polled, with a deadline: log time may run a little behind the clock here.
    deadline = time.monotonic() + 10
    while r.get("e") is not None:
        if time.monotonic() > deadline:
            raise SystemExit("the key never expired")
    check("ttl of a missing key", r.ttl("e"), -2)
    r.set("e", "v")
    check("ttl without expiry", r.ttl("e"), -1)
    check("expire", r.expire("e", 100), True)
    check("persist", r.persist("e"), True)


def transactions(r):
    with r.pipeline(transaction=True) as pipe:
        pipe.set("x", 1).incr("x").get("x")
        check("multi", pipe.execute(), [True, 2, b"2"])
    with r.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.incr("many")
        check("pipeline", pipe.execute(), list(range(1, 1001)))
    r.set("w", 1)
    with r.pipeline() as pipe:
        pipe.watch("w")
        r.set("w", 2)
        pipe.multi()
        pipe.set("w", 3)
        try:
            pipe.execute()
            raise SystemExit("EXEC ran although its watched key had changed")
        except redis.WatchError:
            pass
    check("after the failed EXEC", r.get("w"), b"2")


def own_commands(r, token):
    check("once", r.execute_command("ONCE", token, "INCR", "once"), 1)
    check("once again", r.execute_command("ONCE", token, "INCR", "once"), 1)
    check("deleq of another", r.execute_command("DELIFEQ", "once", "9"), 0)
    check("deleq", r.execute_command("DELIFEQ", "once", "1"), 1)
    check("digest", len(r.execute_command("DIGEST")), 2)


def server(r):
    check("ping", r.ping(), True)
    check("echo", r.echo("hi"), b"hi")
    if not isinstance(r.dbsize(), int):
        raise SystemExit("dbsize is no number")
    if "redis_version" not in r.info():
        raise SystemExit("INFO has no redis_version, which client libraries look for")
    check("client name", r.client_setname("tour"), True)
    check("client name read", r.execute_command("CLIENT", "GETNAME") in (b"tour", "tour"), True)
    refused("lists are out of scope", lambda: r.lpush("l", 1))
    refused("an unknown command", lambda: r.execute_command("NOSUCHTHING"))
    check("after errors", r.ping(), True)


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    for protocol in (2, 3):
        r = redis.Redis(host=host, port=port, protocol=protocol, socket_timeout=30)
        r.flushall()
        for part in (server, strings, keys, expiry, transactions):
            part(r)
        token = f"tour-{protocol}"
        own_commands(r, token)
        r.flushall()
        check("flushall", r.dbsize(), 0)
        # Tokens outlive FLUSHALL on purpose: what ran must not run again.
        check("once after flushall", r.execute_command("ONCE", token, "INCR", "once"), 1)
        print(f"protocol {protocol}: all as expected, redis-py {redis.__version__}")


main()
