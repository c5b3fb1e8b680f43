"""Random copies between two files and within one, against a model. cfr.py DIR SEED OPS [MIB]"""
import ctypes, os, random, sys, time
where, seed, ops = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
limit = int(sys.argv[4] if len(sys.argv) > 4 else 40) << 20
rnd = random.Random(seed)
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
names = [os.path.join(where, "copy-%d-%s" % (seed, n)) for n in "ab"]
files = [os.open(n, os.O_RDWR | os.O_CREAT | os.O_TRUNC) for n in names]
model = [bytearray(), bytearray()]
pool = random.Random(1).randbytes(16 << 20)
def length():
    return rnd.choice([rnd.randrange(1, 4096), rnd.randrange(1, 300000), rnd.randrange(1, 8 << 20), rnd.randrange(1, limit)])
def put(i, at, data):
    m = model[i]
    if len(m) < at: m.extend(bytes(at - len(m)))
    m[at:at + len(data)] = data
def check(i):
    got = os.pread(files[i], limit * 2, 0)
    n = os.fstat(files[i]).st_size
    while len(got) < n:
        more = os.pread(files[i], limit * 2, len(got)); assert more; got += more
    assert len(got) == n == len(model[i]), (seed, step, what, len(got), n, len(model[i]))
    if got != model[i]:
        bad = next(k for k in range(n) if got[k] != model[i][k])
        raise SystemExit("seed %d step %d: file %d differs at %d after %s" % (seed, step, i, bad, what))
for step in range(ops):
    i = rnd.randrange(2); size = len(model[i])
    kind = rnd.choice(["write", "write", "copy", "copy", "copy", "truncate", "punch", "whole", "close", "wait"])
    what = kind
    if kind == "write":
        at = rnd.randrange(0, size + 100000); n = min(length(), 16 << 20, max(1, limit - at)); o = rnd.randrange(0, (16 << 20) - n + 1)
        data = pool[o:o + n]; what = (kind, i, at, n)
        done = 0
        while done < n: done += os.pwrite(files[i], data[done:], at + done)
        put(i, at, data)
    elif kind == "copy":
        j = rnd.randrange(2); ssize = len(model[j])
        if not ssize: continue
        a = rnd.randrange(ssize); n = min(length(), limit)
        b = rnd.choice([rnd.randrange(0, size + 1), size, size + rnd.randrange(0, 3 << 20)])
        if b + n > limit: n = max(1, limit - b)
        n = min(n, ssize - a)
        if n <= 0 or (i == j and a < b + n and b < a + n): continue
        what = (kind, j, a, "->", i, b, n)
        data = bytes(model[j][a:a + n]); done = 0
        while done < n:
            k = os.copy_file_range(files[j], files[i], n - done, a + done, b + done)
            assert k > 0, (seed, step, what, done); done += k
        put(i, b, data)
    elif kind == "truncate":
        n = rnd.randrange(0, min(limit, size + (1 << 20)) + 1); what = (kind, i, size, n)
        os.ftruncate(files[i], n)
        if n < size: del model[i][n:]
        else: model[i].extend(bytes(n - size))
    elif kind == "punch":
        if not size: continue
        a = rnd.randrange(size); n = length(); what = (kind, i, a, n)
        assert libc.fallocate(files[i], 3, a, n) == 0
        e = min(size, a + n); model[i][a:e] = bytes(e - a)
    elif kind == "whole":
        j = 1 - i
        os.ftruncate(files[i], 0); model[i].clear(); n = len(model[j]); done = 0; what = (kind, j, "->", i, n)
        while done < n:
            k = os.copy_file_range(files[j], files[i], n - done, done, done); assert k > 0; done += k
        model[i] = bytearray(model[j])
    elif kind == "close":
        os.close(files[i]); files[i] = os.open(names[i], os.O_RDWR)
    elif kind == "wait":
        time.sleep(rnd.random() * 0.3)
    check(i)
for i in (0, 1):
    step, what = "end", "end"; check(i)
    with open(sys.argv[5] + str(i), "wb") if len(sys.argv) > 5 else open(os.devnull, "wb") as f: f.write(model[i])
