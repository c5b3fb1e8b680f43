"""System calls of 25-posix.sh that no shell command makes: syscalls.py NAME DIR runs one of them."""
import ctypes
import errno
import fcntl
import json
import mmap
import os
import random
import signal
import socket
import stat
import struct
import subprocess
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
LIBC.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
KEEP, PUNCH, COLLAPSE, ZERO, INSERT, UNSHARE = 1, 2, 8, 16, 32, 64
NOBODY = 65534
PAGE = 4096
AT_FDCWD, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = -100, 0x400, 0x1000


def path(name):
    return os.path.join(DIR, name)


def make(name, data=b"", flags=os.O_RDWR):
    fd = os.open(path(name), flags | os.O_CREAT | os.O_TRUNC, 0o644)
    write_all(fd, data, 0)
    return fd


def write_all(fd, data, at):
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], at + done)


def check_call(result):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def allocate(fd, mode, offset, length):
    check_call(LIBC.fallocate(fd, mode, offset, length))


def refused(code, call, *args):
    try:
        call(*args)
    except OSError as e:
        assert e.errno == code, f"{errno.errorcode[e.errno]}, not {errno.errorcode[code]}"
        return
    raise AssertionError(f"{call.__name__} was not refused")


def in_child(work, uid=None):
    """Runs work in another process, as another user if given; it must not raise."""
    pid = os.fork()
    if pid == 0:
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            work()
            os._exit(0)
        except BaseException as e:  # told to the parent by the exit code
            print(f"in the child: {e!r}", file=sys.stderr)
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"


def unnamed(mode=0o600, flags=os.O_RDWR, within="."):
    return os.open(path(within), os.O_TMPFILE | flags, mode)


def link_fd(fd, name):
    """Gives an open file a name, by its entry in /proc (which needs no privilege)."""
    source = f"/proc/self/fd/{fd}".encode()
    check_call(LIBC.linkat(AT_FDCWD, source, AT_FDCWD, path(name).encode(), AT_SYMLINK_FOLLOW))


def link_empty_path(fd, name):
    check_call(LIBC.linkat(fd, b"", AT_FDCWD, path(name).encode(), AT_EMPTY_PATH))


def tmpfile():
    os.umask(0o027)
    before, times = os.listdir(DIR), os.stat(DIR).st_mtime_ns
    fd = unnamed(0o666)
    assert os.listdir(DIR) == before and os.stat(DIR).st_mtime_ns == times
    st = os.fstat(fd)
    assert st.st_nlink == 0 and st.st_size == 0 and stat.S_IMODE(st.st_mode) == 0o640, st
    write_all(fd, b"before", 0)
    os.fsync(fd)
    os.setxattr(fd, "user.kept", b"value")
    os.utime(fd, ns=(5, 7))
    # It can be opened again, and both descriptors are one file.
    with open(f"/proc/self/fd/{fd}", "rb") as again:
        assert again.read() == b"before"
    link_fd(fd, "tmp named")
    st = os.fstat(fd)
    assert st.st_nlink == 1 and st.st_ino == os.stat(path("tmp named")).st_ino and st.st_mtime_ns == 7
    assert "tmp named" in os.listdir(DIR) and os.stat(DIR).st_mtime_ns > times
    write_all(fd, b" and after", 6)
    assert open(path("tmp named"), "rb").read() == b"before and after"
    assert os.getxattr(path("tmp named"), "user.kept") == b"value"
    # From now on it is like any file: more names, and none once the last one is gone.
    link_empty_path(fd, "tmp second")
    assert os.fstat(fd).st_nlink == 2
    os.unlink(path("tmp second"))
    os.unlink(path("tmp named"))
    refused(errno.ENOENT, link_fd, fd, "tmp third")
    assert os.pread(fd, 100, 0) == b"before and after" and os.fstat(fd).st_nlink == 0
    os.close(fd)

    # A taken name changes nothing; a free one works then.
    fd = unnamed()
    os.close(make("tmp taken", b"old"))
    refused(errno.EEXIST, link_fd, fd, "tmp taken")
    refused(errno.ENAMETOOLONG, link_fd, fd, "n" * 256)
    refused(errno.ENOENT, link_fd, fd, "no folder/x")
    assert os.fstat(fd).st_nlink == 0
    # As editors save: under another name, then over the old one.
    write_all(fd, b"new", 0)
    link_fd(fd, "tmp new")
    os.rename(path("tmp new"), path("tmp taken"))
    assert open(path("tmp taken"), "rb").read() == b"new"
    os.close(fd)

    # O_EXCL: it will never have a name. Neither has what was unlinked.
    fd = unnamed(flags=os.O_RDWR | os.O_EXCL)
    write_all(fd, b"private", 0)
    refused(errno.ENOENT, link_fd, fd, "tmp never")
    refused(errno.ENOENT, link_empty_path, fd, "tmp never")
    os.close(fd)
    fd = make("tmp gone")
    os.unlink(path("tmp gone"))
    refused(errno.ENOENT, link_fd, fd, "tmp gone")
    os.close(fd)

    # It lives as long as anything leads to it: a mapping, a descriptor that is no open file.
    fd = unnamed()
    os.ftruncate(fd, PAGE)
    with mmap.mmap(fd, PAGE) as mapped:
        os.close(fd)
        mapped[:6] = b"mapped"
        assert mapped[:6] == b"mapped"
    fd = unnamed()
    write_all(fd, b"by its path", 0)
    held = os.open(f"/proc/self/fd/{fd}", os.O_PATH)
    os.close(fd)
    link_empty_path(held, "tmp held")
    assert open(path("tmp held"), "rb").read() == b"by its path"

    # Small and large, sparse and copied, each with a name at the end.
    big = random.Random(1).randbytes(9 << 20)
    fd, copy = unnamed(), unnamed()
    write_all(fd, big, 0)
    done = 0
    while done < len(big):
        done += os.copy_file_range(fd, copy, len(big) - done, done, done)
    allocate(fd, PUNCH | KEEP, 1 << 20, 2 << 20)
    link_fd(copy, "tmp copy")
    link_fd(fd, "tmp punched")
    assert open(path("tmp copy"), "rb").read() == big
    assert open(path("tmp punched"), "rb").read() == big[: 1 << 20] + bytes(2 << 20) + big[3 << 20 :]

    # What open(2) says of wrong uses.
    refused(errno.EINVAL, lambda: unnamed(flags=os.O_RDONLY))
    refused(errno.ENOTDIR, lambda: unnamed(within="tmp copy"))
    refused(errno.ENOENT, lambda: unnamed(within="nowhere"))


def tmpfile_rights():
    """Owner, group, modes and privileges; who may make one where."""
    os.umask(0)
    os.mkdir(path("tmp closed"), 0o755)
    os.mkdir(path("tmp group"))
    os.chown(path("tmp group"), -1, 12345)
    os.chmod(path("tmp group"), 0o2777)

    def as_nobody():
        refused(errno.EACCES, lambda: unnamed(within="tmp closed"))
        fd = unnamed(0o4755, within="tmp group")
        st = os.fstat(fd)
        assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode)) == (NOBODY, 12345, 0o4755), st
        os.write(fd, b"x")
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o755
        refused(errno.EACCES, link_fd, fd, "tmp closed/x")
        link_fd(fd, "tmp group/x")
        # Written by a mode that refuses: only the open counts.
        fd = unnamed(0)
        os.write(fd, b"y")
        link_fd(fd, "tmp locked")
        refused(errno.EACCES, lambda: os.open(path("tmp locked"), os.O_RDONLY))

    in_child(as_nobody, NOBODY)
    st = os.stat(path("tmp group/x"))
    assert (st.st_uid, st.st_gid, stat.S_IMODE(st.st_mode), st.st_size) == (NOBODY, 12345, 0o755, 1), st
    st = os.stat(path("tmp locked"))
    assert (st.st_uid, stat.S_IMODE(st.st_mode), st.st_size) == (NOBODY, 0, 1), st


def drivefs(*words):
    done = subprocess.run(["drivefs", *words], check=True, stdout=subprocess.PIPE, timeout=100)
    return done.stdout


def tmpfile_sent():
    """Nothing leaves the machine while it has no name, and all of it does once it has one."""

    def sent():
        return json.loads(drivefs("status", "--json"))["bytes_sent"]

    drivefs("sync")
    before, big = sent(), random.Random(2).randbytes(8 << 20)
    fd, private = unnamed(), unnamed(flags=os.O_RDWR | os.O_EXCL)
    for each in (fd, private):
        write_all(each, big, 0)
        os.fsync(each)
    # By reference: blocks of files without a name are kept like those that wait to be sent.
    copy = unnamed()
    assert os.copy_file_range(fd, copy, len(big), 0, 0) == len(big)
    drivefs("sync")
    assert sent() - before < 64 << 10, sent() - before
    assert json.loads(drivefs("status", "--json"))["queue"] == []
    link_fd(fd, "tmp sent")
    write_all(fd, b"after", 3)
    os.close(fd)
    drivefs("sync")
    assert len(big) < sent() - before < len(big) + (1 << 20), sent() - before
    # Its first block, of up to 4 MiB, is not that of the one which was written again.
    before = sent()
    link_fd(copy, "tmp sent copy")
    os.close(copy)
    drivefs("sync")
    assert sent() - before < 5 << 20, sent() - before


def tmpfile_saved():
    """A few small ones with names, for a server that is away."""
    for i in range(5):
        fd = unnamed()
        write_all(fd, b"offline %d" % i, 0)
        link_fd(fd, f"tmp offline {i}")
        write_all(fd, b"!", 9)


def tmpfile_held():
    """Files with and without a name, open until it is killed."""
    held = [unnamed() for _ in range(3)]
    for fd, size in zip(held, (10, 70_000, 9 << 20)):
        write_all(fd, bytes(size), 0)
    named = unnamed()
    write_all(named, b"named just before the end", 0)
    link_fd(named, "tmp survivor")
    os.close(make("tmp ready"))
    signal.pause()


def unlinked():
    fd = make("unlinked", b"before")
    os.unlink(path("unlinked"))
    assert not os.path.exists(path("unlinked"))
    assert os.fstat(fd).st_nlink == 0
    os.pwrite(fd, b"after", 6)
    assert os.pread(fd, 100, 0) == b"beforeafter"
    os.ftruncate(fd, 3)
    assert os.fstat(fd).st_size == 3 and os.pread(fd, 100, 0) == b"bef"
    os.fchmod(fd, 0o600)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    os.fsync(fd)
    os.close(fd)
    # One that is replaced by a rename lives on as well, and so does a folder that was removed.
    fd = make("old", b"old")
    os.close(make("new", b"new"))
    os.rename(path("new"), path("old"))
    assert os.pread(fd, 10, 0) == b"old" and os.fstat(fd).st_nlink == 0
    os.mkdir(path("folder"))
    folder = os.open(path("folder"), os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(path("folder"))
    assert os.fstat(folder).st_nlink == 0 and os.listdir(folder) == []
    refused(errno.ENOENT, lambda: os.open("x", os.O_CREAT | os.O_RDWR, dir_fd=folder))
    os.unlink(path("old"))


def append():
    """Two processes append records; none is torn, none is lost."""
    os.close(make("log"))
    records, size = 2000, 100
    children = []
    for who in b"ab":
        pid = os.fork()
        if pid == 0:
            fd = os.open(path("log"), os.O_WRONLY | os.O_APPEND)
            for _ in range(records):
                assert os.write(fd, bytes([who]) * (size - 1) + b"\n") == size
            os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0
    lines = open(path("log"), "rb").read().split(b"\n")[:-1]
    assert len(lines) == 2 * records, len(lines)
    for who in b"ab":
        assert lines.count(bytes([who]) * (size - 1)) == records


def mapped():
    """A shared, writable mapping, seen by other processes, and cut by a truncation."""
    fd = make("mapped", b"x" * (3 * PAGE))
    m = mmap.mmap(fd, 3 * PAGE)

    def other():
        with open(path("mapped"), "r+b") as f:
            n = mmap.mmap(f.fileno(), 3 * PAGE)
            assert n[:5] == b"first"
            n[PAGE : PAGE + 6] = b"second"
            n.flush()

    m[:5] = b"first"
    in_child(other)
    assert m[PAGE : PAGE + 6] == b"second"
    assert os.pread(fd, 6, PAGE) == b"second" and os.pread(fd, 5, 0) == b"first"
    # write(2) shows in the mapping, at once.
    os.pwrite(fd, b"third", 2 * PAGE)
    assert m[2 * PAGE : 2 * PAGE + 5] == b"third"
    # Beyond the end after a truncation is SIGBUS; what comes back by growth is zeros.
    os.ftruncate(fd, PAGE + 10)
    assert m[PAGE : PAGE + 10] == b"second" + b"x" * 4
    assert m[PAGE + 10 : 2 * PAGE] == bytes(PAGE - 10)
    pid = os.fork()
    if pid == 0:
        m[2 * PAGE]
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGBUS
    os.ftruncate(fd, 3 * PAGE)
    assert m[2 * PAGE : 3 * PAGE] == bytes(PAGE)
    m[2 * PAGE] = 65
    m.flush()
    assert os.pread(fd, 1, 2 * PAGE) == b"A"
    # A private mapping stays private.
    p = mmap.mmap(fd, PAGE, flags=mmap.MAP_PRIVATE)
    p[0:1] = b"!"
    assert os.pread(fd, 1, 0) == b"f"
    # Without msync, after unmapping and closing.
    m[PAGE : PAGE + 4] = b"last"
    m.close()
    os.close(fd)
    assert open(path("mapped"), "rb").read()[PAGE : PAGE + 4] == b"last"


def direct():
    fd = make("direct", flags=os.O_RDWR | os.O_DIRECT)
    out, back = mmap.mmap(-1, 1 << 20), mmap.mmap(-1, 1 << 20)
    out[:] = random.Random(3).randbytes(1 << 20)
    assert os.pwritev(fd, [out], 1 << 20) == 1 << 20
    assert os.preadv(fd, [back], 1 << 20) == 1 << 20 and back[:] == out[:]
    assert os.preadv(fd, [back], 0) == 1 << 20 and back[:] == bytes(1 << 20)
    # What goes by the cache and what goes past it are one file.
    cached = os.open(path("direct"), os.O_RDWR)
    assert os.pread(cached, 1 << 20, 1 << 20) == out[:]
    os.pwrite(cached, b"z" * PAGE, 1 << 20)
    assert os.preadv(fd, [back], 1 << 20) == 1 << 20 and back[:PAGE] == b"z" * PAGE
    out[:] = b"w" * (1 << 20)
    assert os.pwritev(fd, [out], 0) == 1 << 20
    assert os.pread(cached, 1 << 20, 0) == out[:]


def fallocate():
    fd = make("allocated")
    allocate(fd, 0, 0, 100_000)
    assert os.fstat(fd).st_size == 100_000 and os.pread(fd, 200_000, 0) == bytes(100_000)
    allocate(fd, KEEP, 0, 200_000)
    assert os.fstat(fd).st_size == 100_000
    os.pwrite(fd, b"a" * 100_000, 0)
    before = os.fstat(fd).st_mtime_ns
    allocate(fd, PUNCH | KEEP, 1000, 5000)
    assert os.fstat(fd).st_mtime_ns > before
    want = b"a" * 1000 + bytes(5000) + b"a" * 94_000
    assert os.pread(fd, 200_000, 0) == want
    allocate(fd, PUNCH | KEEP, 99_000, 50_000)
    assert os.fstat(fd).st_size == 100_000
    assert os.pread(fd, 200_000, 0) == want[:99_000] + bytes(1000)
    allocate(fd, ZERO, 90_000, 20_000)
    assert os.fstat(fd).st_size == 110_000
    assert os.pread(fd, 200_000, 0) == want[:90_000] + bytes(20_000)
    allocate(fd, ZERO | KEEP, 80_000, 90_000)
    assert os.fstat(fd).st_size == 110_000
    assert os.pread(fd, 200_000, 0) == want[:80_000] + bytes(30_000)
    for mode in (COLLAPSE, INSERT, UNSHARE, PUNCH):
        refused(errno.EOPNOTSUPP, allocate, fd, mode, 0, PAGE)
    refused(errno.EINVAL, allocate, fd, 0, 0, 0)
    refused(errno.EBADF, allocate, os.open(path("allocated"), os.O_RDONLY), 0, 0, PAGE)


def holes():
    fd = make("holes")
    os.ftruncate(fd, 40 << 20)
    assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
    refused(errno.ENXIO, os.lseek, fd, 0, os.SEEK_DATA)
    os.pwrite(fd, b"x" * PAGE, 20 << 20)
    found = os.lseek(fd, 0, os.SEEK_DATA)
    assert (20 << 20) - (64 << 10) <= found <= 20 << 20, found
    found = os.lseek(fd, 20 << 20, os.SEEK_HOLE)
    assert (20 << 20) + PAGE <= found <= (20 << 20) + (64 << 10), found
    refused(errno.ENXIO, os.lseek, fd, 40 << 20, os.SEEK_DATA)
    refused(errno.ENXIO, os.lseek, fd, 40 << 20, os.SEEK_HOLE)
    assert os.lseek(fd, 30 << 20, os.SEEK_HOLE) == 30 << 20
    # What was written through a mapping is data, flushed or not, for whoever asks.
    m = mmap.mmap(fd, 40 << 20)
    m[35 << 20] = 1

    def other():
        r = os.open(path("holes"), os.O_RDONLY)
        assert os.lseek(r, 30 << 20, os.SEEK_DATA) <= 35 << 20

    in_child(other)
    m[36 << 20] = 2
    in_child(other)
    assert os.pread(fd, 1, 36 << 20) == b"\2" and m[35 << 20] == 1
    dense = make("dense", b"y" * 100_000)
    assert os.lseek(dense, 50, os.SEEK_DATA) == 50
    assert os.lseek(dense, 50, os.SEEK_HOLE) == 100_000


def holes_synced():
    """The same file after it became blocks: a superset of the data."""
    fd = os.open(path("holes"), os.O_RDONLY)
    at, data = 0, []
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            assert e.errno == errno.ENXIO
            break
        end = os.lseek(fd, at, os.SEEK_HOLE)
        assert end > at
        data.append((at, end))
        at = end
    for byte in (20 << 20, 35 << 20, 36 << 20):
        assert any(a <= byte < b for a, b in data), (byte, data)
    known = (40 << 20) - sum(b - a for a, b in data)
    assert known >= 16 << 20, f"only {known} bytes are known as holes: {data}"


def copy_ranges():
    pool = random.Random(5).randbytes(12 << 20)
    src, dst = make("from", pool), make("to")
    # Past the end there is nothing; up to the end it is short.
    assert os.copy_file_range(src, dst, 100, len(pool), 0) == 0
    assert os.copy_file_range(src, dst, 1 << 20, len(pool) - 10, 0) == 10
    assert os.pread(dst, 100, 0) == pool[-10:]
    # Far behind the end of the target: zeros between.
    assert os.copy_file_range(src, dst, 5, 0, 1000) == 5
    assert os.pread(dst, 2000, 0) == pool[-10:] + bytes(990) + pool[:5]
    # Over layers on both sides.
    os.pwrite(src, b"fresh", 6 << 20)
    os.pwrite(dst, b"under", 3)
    whole(src, dst, 0, 0, 12 << 20)
    want = bytearray(pool)
    want[6 << 20 : (6 << 20) + 5] = b"fresh"
    assert os.pread(dst, 13 << 20, 0) == want
    # Within one file.
    refused(errno.EINVAL, os.copy_file_range, src, src, 100, 0, 50)
    whole(dst, dst, 1000, (7 << 20) + 77, 5 << 20)
    want[(7 << 20) + 77 : (12 << 20) + 77] = want[1000 : 1000 + (5 << 20)]
    assert os.pread(dst, 20 << 20, 0) == want
    # The source was not touched by what was written to the copy.
    os.pwrite(dst, b"changed", 0)
    assert os.pread(src, 7, 0) == pool[:7]
    # What lies in a mapping is copied too.
    m = mmap.mmap(src, 12 << 20)
    m[0:4] = b"MMAP"
    os.ftruncate(dst, 0)
    whole(src, dst, 0, 0, 12 << 20)
    assert os.pread(dst, 4, 0) == b"MMAP"
    refused(errno.EBADF, os.copy_file_range, src, os.open(path("to"), os.O_RDONLY), 10)
    refused(errno.EISDIR, os.copy_file_range, os.open(DIR, os.O_RDONLY), dst, 10)


def whole(src, dst, at, to, length):
    while length:
        n = os.copy_file_range(src, dst, length, at, to)
        assert n > 0
        at, to, length = at + n, to + n, length - n


def flock():
    one = make("flock")

    def other():
        two = os.open(path("flock"), os.O_RDWR)
        refused(errno.EWOULDBLOCK, fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        refused(errno.EWOULDBLOCK, fcntl.flock, two, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def free():
        fcntl.flock(os.open(path("flock"), os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)

    fcntl.flock(one, fcntl.LOCK_EX)
    in_child(other)
    fcntl.flock(one, fcntl.LOCK_UN)
    in_child(free)
    # They go with the process that held them.
    in_child(lambda: fcntl.flock(os.open(path("flock"), os.O_RDWR), fcntl.LOCK_EX))
    fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)


def records():
    one = make("records", b"x" * 100)
    fcntl.lockf(one, fcntl.LOCK_EX, 10, 20)

    def other():
        two = os.open(path("records"), os.O_RDWR)
        refused(errno.EAGAIN, fcntl.lockf, two, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 25)
        fcntl.lockf(two, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 30)
        fcntl.lockf(two, fcntl.LOCK_EX | fcntl.LOCK_NB, 20, 0)
        # Who holds it can be asked.
        ask = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 100, 0)
        kind, _, start, length, pid = struct.unpack("hhqqi", fcntl.fcntl(two, fcntl.F_GETLK, ask)[:28])
        assert (kind, start, length, pid) == (fcntl.F_WRLCK, 20, 10, os.getppid())

    in_child(other)
    # Closing any descriptor of the file drops them, as POSIX has it.
    os.close(os.open(path("records"), os.O_RDONLY))
    in_child(lambda: fcntl.lockf(os.open(path("records"), os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB))


def xattrs():
    file = path("attributes")
    os.close(make("attributes"))
    os.setxattr(file, "user.large", b"x" * 65536)
    refused(errno.E2BIG, os.setxattr, file, "user.larger", b"x" * 65537)
    os.setxattr(file, "user.second", b"x" * 65000)
    refused(errno.ENOSPC, os.setxattr, file, "user.third", b"x" * 65000)
    assert len(os.getxattr(file, "user.large")) == 65536
    refused(errno.ERANGE, os.setxattr, file, "user." + "n" * 251, b"")
    os.setxattr(file, "user." + "n" * 250, b"empty name space left")
    os.setxattr(file, "user.empty", b"")
    assert os.getxattr(file, "user.empty") == b""
    refused(errno.EEXIST, os.setxattr, file, "user.empty", b"", os.XATTR_CREATE)
    refused(errno.ENODATA, os.setxattr, file, "user.none", b"", os.XATTR_REPLACE)
    refused(errno.ENODATA, os.getxattr, file, "user.none")
    refused(errno.ENODATA, os.removexattr, file, "user.none")
    os.removexattr(file, "user.empty")
    assert sorted(os.listxattr(file)) == sorted(["user.large", "user.second", "user." + "n" * 250])
    # Sizes: asked with none, refused when too small.
    LIBC.getxattr.restype = LIBC.listxattr.restype = ctypes.c_ssize_t
    small = ctypes.create_string_buffer(4)
    assert LIBC.getxattr(file.encode(), b"user.large", None, 0) == 65536
    assert LIBC.getxattr(file.encode(), b"user.large", small, 4) == -1
    assert ctypes.get_errno() == errno.ERANGE
    assert LIBC.listxattr(file.encode(), None, 0) == len("user.large user.second user. ") + 250
    assert LIBC.listxattr(file.encode(), small, 4) == -1 and ctypes.get_errno() == errno.ERANGE
    # Name spaces, and what has attributes at all.
    refused(errno.EOPNOTSUPP, os.setxattr, file, "nothing.known", b"")
    refused(errno.EPERM, os.setxattr, file, "user.drivefs.state", b"synced")
    if os.getuid() == 0:
        os.setxattr(file, "trusted.of-root", b"1")
        os.setxattr(file, "security.label", b"2")
        os.symlink("nowhere", path("link"))
        os.setxattr(path("link"), "trusted.of-root", b"3", follow_symlinks=False)
        refused(errno.EPERM, lambda: os.setxattr(path("link"), "user.x", b"", follow_symlinks=False))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", t, 7, 0xFFFFFFFF) for t in (1, 4, 32))
    for name in ("system.posix_acl_access", "system.posix_acl_default"):
        refused(errno.EOPNOTSUPP, os.setxattr, DIR, name, acl)
        refused(errno.EOPNOTSUPP, os.getxattr, DIR, name)
    os.unlink(file)


def privileges():
    """Set-user-ID, set-group-ID and capabilities do not survive a write by others, nor a chown."""
    capability = struct.pack("<5I", 0x02000000, 1 << 10, 0, 0, 0)

    def fresh(mode=0o6777):
        file = path("suid")
        if os.path.exists(file):
            os.unlink(file)
        fd = make("suid", b"x" * 10)
        os.fchmod(fd, mode)
        return file, fd

    def bits(file):
        return os.stat(file).st_mode & 0o7777

    def child_write(file):
        os.pwrite(os.open(file, os.O_RDWR), b"y", 0)

    changes = {
        "write": child_write,
        "truncate": lambda f: os.truncate(f, 3),
        "open with O_TRUNC": lambda f: os.open(f, os.O_RDWR | os.O_TRUNC),
        "fallocate": lambda f: allocate(os.open(f, os.O_RDWR), 0, 0, 100),
        "punch": lambda f: allocate(os.open(f, os.O_RDWR), PUNCH | KEEP, 0, 5),
        "copy_file_range": lambda f: os.copy_file_range(os.open(path("other"), os.O_RDONLY), os.open(f, os.O_RDWR), 5),
    }
    os.close(make("other", b"other bytes"))
    for name, change in changes.items():
        file, fd = fresh()
        in_child(lambda: change(file), NOBODY)
        assert bits(file) == 0o777, (name, oct(bits(file)))
    # Without group execution set-group-ID is no privilege.
    file, fd = fresh(0o6767)
    in_child(lambda: child_write(file), NOBODY)
    assert bits(file) & 0o4000 == 0
    # Root's own writes leave them; a change of owner does not.
    file, fd = fresh()
    os.pwrite(fd, b"z", 0)
    os.ftruncate(fd, 5)
    assert bits(file) == 0o6777
    os.chown(file, NOBODY, NOBODY)
    assert bits(file) == 0o777
    for change in (child_write, lambda f: os.chown(f, 1, 1)):
        file, fd = fresh(0o777)
        os.setxattr(file, "security.capability", capability)
        assert os.getxattr(file, "security.capability") == capability
        change(file)
        refused(errno.ENODATA, os.getxattr, file, "security.capability")
    # Executed at once after the write: no privilege left with the kernel either.
    file, fd = fresh()
    in_child(lambda: child_write(file), NOBODY)
    assert bits(file) == 0o777


def folders():
    """Link counts and sizes of folders."""
    os.mkdir(path("counted"))
    assert os.stat(path("counted")).st_nlink == 2
    for i in range(5):
        os.mkdir(path(f"counted/{i}"))
    os.close(make("counted/file"))
    assert os.stat(path("counted")).st_nlink == 7
    os.rename(path("counted/0"), path("moved"))
    assert os.stat(path("counted")).st_nlink == 6
    os.rename(path("moved"), path("counted/1"))  # Over an empty one.
    assert os.stat(path("counted")).st_nlink == 6
    check_call(LIBC.renameat2(-100, path("counted/2").encode(), -100, path("counted/file").encode(), 2))
    assert os.stat(path("counted")).st_nlink == 6
    for name in ("1", "3", "4", "file"):
        os.rmdir(path(f"counted/{name}"))
    assert os.stat(path("counted")).st_nlink == 2
    assert os.stat(path("counted")).st_size > 0
    os.unlink(path("counted/2"))
    os.rmdir(path("counted"))


def times():
    file = path("times")
    fd = make("times", b"1")
    os.utime(file, ns=(1_234_567_890_123_456_789, 987_654_321_012_345_678))
    s = os.stat(file)
    assert (s.st_atime_ns, s.st_mtime_ns) == (1_234_567_890_123_456_789, 987_654_321_012_345_678)
    assert s.st_ctime_ns > s.st_atime_ns
    # UTIME_OMIT leaves one alone.
    class Time(ctypes.Structure):
        _fields_ = [("sec", ctypes.c_int64), ("nsec", ctypes.c_int64)]
    NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
    check_call(LIBC.utimensat(-100, file.encode(), (Time * 2)(Time(0, OMIT), Time(5, 7)), 0))
    s = os.stat(file)
    assert (s.st_atime_ns, s.st_mtime_ns) == (1_234_567_890_123_456_789, 5_000_000_007)
    check_call(LIBC.utimensat(-100, file.encode(), (Time * 2)(Time(0, NOW), Time(0, OMIT)), 0))
    t = os.stat(file)
    assert t.st_mtime_ns == 5_000_000_007 and t.st_atime_ns > s.st_atime_ns
    os.utime(file, ns=(0, -1_500_000_000))
    assert os.stat(file).st_mtime_ns == -1_500_000_000
    # Reading leaves the access time; writing moves mtime and ctime on.
    before = os.stat(file)
    os.pread(fd, 1, 0)
    assert os.stat(file).st_atime_ns == before.st_atime_ns
    os.pwrite(fd, b"2", 0)
    after = os.stat(file)
    assert after.st_mtime_ns > before.st_mtime_ns and after.st_ctime_ns > before.st_ctime_ns
    assert after.st_atime_ns == before.st_atime_ns


def names():
    os.close(make("n" * 255))
    refused(errno.ENAMETOOLONG, os.stat, path("n" * 256))
    refused(errno.ENAMETOOLONG, lambda: os.open(path("n" * 256), os.O_CREAT | os.O_RDWR))
    refused(errno.ENAMETOOLONG, os.mkdir, path("n" * 256))
    refused(errno.ENAMETOOLONG, os.symlink, "t" * 4096, path("too-long"))
    os.symlink("t" * 4095, path("longest"))
    assert os.readlink(path("longest")) == "t" * 4095
    os.symlink("loop-b", path("loop-a"))
    os.symlink("loop-a", path("loop-b"))
    refused(errno.ELOOP, os.stat, path("loop-a"))
    refused(errno.ENOENT, os.stat, path("nothing"))
    refused(errno.ENOTDIR, os.stat, path("n" * 255 + "/x"))
    for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFREG):
        os.mknod(path("node"), kind | 0o640)
        assert stat.S_IFMT(os.stat(path("node")).st_mode) == kind
        os.unlink(path("node"))
    if os.getuid() == 0:
        for kind in (stat.S_IFCHR, stat.S_IFBLK):
            os.mknod(path("node"), kind | 0o600, os.makedev(259, 70000))
            s = os.stat(path("node"))
            assert stat.S_IFMT(s.st_mode) == kind and s.st_rdev == os.makedev(259, 70000)
            os.unlink(path("node"))
    with socket.socket(socket.AF_UNIX) as server:
        # A socket's path is short: by the folder.
        os.chdir(DIR)
        server.bind("socket")
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("socket")
    refused(errno.EEXIST, lambda: os.open(path("loop-a"), os.O_CREAT | os.O_EXCL | os.O_RDWR))
    refused(errno.ELOOP, lambda: os.open(path("loop-a"), os.O_RDONLY | os.O_NOFOLLOW))
    refused(errno.ENOTDIR, lambda: os.open(path("n" * 255), os.O_RDONLY | os.O_DIRECTORY))
    refused(errno.EISDIR, lambda: os.open(DIR, os.O_WRONLY))


def clone():
    # FICLONE is not handed to FUSE by the kernel; programs fall back to copy_file_range.
    src, dst = make("clone-from", b"x" * 100_000), make("clone-to")
    refused(errno.EOPNOTSUPP, fcntl.ioctl, dst, 0x40049409, src)


def space():
    s = os.statvfs(DIR)
    assert s.f_frsize * s.f_blocks == int(sys.argv[3]), s.f_frsize * s.f_blocks
    assert 0 < s.f_bfree <= s.f_blocks and s.f_namemax == 255
    fd = make("blocks", b"x" * 100_000)
    assert os.fstat(fd).st_blocks * 512 >= 100_000 and os.fstat(fd).st_blksize >= PAGE


if __name__ == "__main__":
    DIR = sys.argv[2]
    globals()[sys.argv[1]]()
