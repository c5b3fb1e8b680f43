"""The official Dropbox SDK for Python, as it comes, against a drivefs server.

The SDK takes its hosts from the environment (DROPBOX_API_HOST, DROPBOX_API_CONTENT_HOST,
DROPBOX_API_NOTIFY_HOST) and speaks TLS alone; `ca_certs` of its session trusts our certificate.

usage: dropbox_sdk.py TOKEN CA_FILE
"""

import datetime
import os
import sys
import threading
import time

import dropbox
from dropbox import content_hash, files
from dropbox.exceptions import ApiError, AuthError

token, ca = sys.argv[1:3]


def client(token):
    return dropbox.Dropbox(token, session=dropbox.create_session(ca_certs=ca), max_retries_on_error=0)


dbx = client(token)
MB = 1024 * 1024


def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiError as e:
        return e.error
    raise AssertionError(f"{call.__name__} was not refused")


def names(entries):
    return sorted(e.path_display for e in entries)


def follow(cursor):
    out = []
    while True:
        page = dbx.files_list_folder_continue(cursor)
        out += page.entries
        cursor = page.cursor
        if not page.has_more:
            return out, cursor


# ---- the account
account = dbx.users_get_current_account()
assert account.email == "alice@example.com", account
usage = dbx.users_get_space_usage()
assert usage.used == 0 and usage.allocation.is_individual(), usage
try:
    client("dfs_" + "0" * 64).files_list_folder("")
    raise AssertionError("a wrong token was let in")
except AuthError as e:
    assert e.error.is_invalid_access_token(), e

# ---- simple uploads
when = datetime.datetime(2020, 2, 29, 12, 34, 56)
first = dbx.files_upload(b"one", "/Soup/best.txt", client_modified=when)
assert first.size == 3 and first.path_display == "/Soup/best.txt" and first.name == "best.txt"
assert first.client_modified == when and first.rev and first.id.startswith("id:")
same = dbx.files_upload(b"one", "/Soup/best.txt")
assert same.rev == first.rev, "the same content is no conflict"
error = refused(dbx.files_upload, b"two", "/Soup/best.txt")
assert error.is_path() and error.get_path().reason.is_conflict(), error
assert error.get_path().reason.get_conflict().is_file()
renamed = dbx.files_upload(b"two", "/Soup/best.txt", autorename=True)
assert renamed.path_display == "/Soup/best (1).txt", renamed
second = dbx.files_upload(b"two!", "/Soup/best.txt", mode=files.WriteMode.update(first.rev))
assert second.rev != first.rev and second.id == first.id
error = refused(dbx.files_upload, b"3", "/Soup/best.txt", mode=files.WriteMode.update(first.rev))
assert error.get_path().reason.is_conflict()
third = dbx.files_upload(b"three", "/Soup/best.txt", mode=files.WriteMode.overwrite)
error = refused(dbx.files_upload, b"x", "/Soup/best.txt/below", mode=files.WriteMode.overwrite)
assert error.get_path().reason.get_conflict().is_file_ancestor(), error
error = refused(dbx.files_upload, b"x", "/Soup", mode=files.WriteMode.overwrite)
assert error.get_path().reason.get_conflict().is_folder(), error
bad = "0" * 64
error = refused(dbx.files_upload, b"x", "/hash", content_hash=bad)
assert error.is_content_hash_mismatch(), error
good = dbx.files_upload(b"x", "/hash", content_hash=content_hash.content_hash(b"x"))
unicode = dbx.files_upload(b"\xc3", "/S\u00fcppchen \U0001f372.txt")
assert unicode.name == "S\u00fcppchen \U0001f372.txt", unicode

# ---- lists and cursors
page = dbx.files_list_folder("")
assert names(page.entries) == sorted(["/Soup", "/hash", "/S\u00fcppchen \U0001f372.txt"]), page
assert isinstance([e for e in page.entries if e.name == "Soup"][0], files.FolderMetadata)
everything = dbx.files_list_folder("", recursive=True, limit=1)
seen, cursor, pages = list(everything.entries), everything.cursor, 1
while everything.has_more:
    everything = dbx.files_list_folder_continue(cursor)
    seen, cursor, pages = seen + everything.entries, everything.cursor, pages + 1
assert len(seen) == 5 and pages >= 5, (names(seen), pages)
assert refused(dbx.files_list_folder, "/nowhere").get_path().is_not_found()
assert refused(dbx.files_list_folder, "/hash").get_path().is_not_folder()
assert refused(dbx.files_list_folder_continue, "nonsense").is_reset()

# ---- a long poll that is answered by a change
latest = dbx.files_list_folder_get_latest_cursor("", recursive=True).cursor
answers = []
poll = threading.Thread(
    target=lambda: answers.append((client(token).files_list_folder_longpoll(latest, 60), time.time()))
)
poll.start()
time.sleep(1)
assert not answers, "nothing has changed yet"
began = time.time()
dbx.files_create_folder_v2("/Later/Deep")
poll.join(30)
assert answers and answers[0][0].changes, answers
print(f"long poll answered {answers[0][1] - began:.3f} s after the change began")
entries, cursor = follow(latest)
assert names(entries) == ["/Later", "/Later/Deep"], entries

# ---- upload sessions, larger than one block
data = os.urandom(9 * MB + 12345)
start = dbx.files_upload_session_start(data[: 4 * MB])
at = files.UploadSessionCursor(start.session_id, 4 * MB)
dbx.files_upload_session_append_v2(data[4 * MB : 8 * MB], at)
error = refused(dbx.files_upload_session_append_v2, b"again", at)
assert error.is_incorrect_offset() and error.get_incorrect_offset().correct_offset == 8 * MB, error
at.offset = 8 * MB
commit = files.CommitInfo("/Later/big.bin", client_modified=when)
big = dbx.files_upload_session_finish(data[8 * MB :], at, commit)
assert big.size == len(data) and big.client_modified == when
unknown = files.UploadSessionCursor("00000000-0000-4000-8000-000000000000", 0)
assert refused(dbx.files_upload_session_append_v2, b"", unknown).is_not_found()
error = refused(dbx.files_upload_session_finish, b"", unknown, commit)
assert error.get_lookup_failed().is_not_found(), error

# ---- downloads
meta, answer = dbx.files_download("/Later/big.bin")
assert answer.content == data and meta.rev == big.rev
assert content_hash.content_hash(answer.content) == content_hash.content_hash(data)
_, answer = dbx.files_download("rev:" + first.rev)
assert answer.content == b"one"
_, answer = dbx.files_download(first.id)
assert answer.content == b"three"
meta, answer = dbx.files_download("/S\u00fcppchen \U0001f372.txt")
assert answer.content == b"\xc3" and meta.name == unicode.name
assert refused(dbx.files_download, "/none").get_path().is_not_found()
assert refused(dbx.files_download, "/Soup").get_path().is_not_file()

# ---- revisions and restore
revisions = dbx.files_list_revisions("/Soup/best.txt")
assert [r.rev for r in revisions.entries] == [third.rev, second.rev, first.rev], revisions
assert [r.size for r in revisions.entries] == [5, 4, 3] and not revisions.is_deleted
restored = dbx.files_restore("/Soup/best.txt", first.rev)
assert restored.size == 3 and restored.rev != first.rev
assert dbx.files_download("/Soup/best.txt")[1].content == b"one"
deleted = dbx.files_delete_v2("/Soup/best.txt").metadata
assert deleted.name == "best.txt"
assert refused(dbx.files_get_metadata, "/Soup/best.txt").get_path().is_not_found()
gone = dbx.files_get_metadata("/Soup/best.txt", include_deleted=True)
assert isinstance(gone, files.DeletedMetadata), gone
listed = dbx.files_list_folder("/Soup", include_deleted=True).entries
assert any(isinstance(e, files.DeletedMetadata) and e.name == "best.txt" for e in listed), listed
revisions = dbx.files_list_revisions("/Soup/best.txt")
assert revisions.is_deleted and revisions.server_deleted and len(revisions.entries) == 4
back = dbx.files_restore("/Soup/best.txt", second.rev)
assert dbx.files_download("/Soup/best.txt")[1].content == b"two!" and back.size == 4
assert refused(dbx.files_restore, "/Soup/best.txt", "0123456789").is_invalid_revision()

# ---- what changed since is told, a moved folder with all that is in it
_, cursor = follow(cursor)
dbx.files_move_v2("/Later", "/Moved")
entries, cursor = follow(cursor)
assert names(e for e in entries if isinstance(e, files.DeletedMetadata)) == ["/Later"], entries
live = names(e for e in entries if not isinstance(e, files.DeletedMetadata))
assert live == ["/Moved", "/Moved/Deep", "/Moved/big.bin"], live
copied = dbx.files_copy_v2("/Moved", "/Copy").metadata
assert copied.path_display == "/Copy"
assert dbx.files_download("/Copy/big.bin")[1].content == data
entries, cursor = follow(cursor)
assert names(entries) == ["/Copy", "/Copy/Deep", "/Copy/big.bin"], entries
error = refused(dbx.files_move_v2, "/Moved", "/Moved/Deep/In")
assert error.is_cant_move_folder_into_itself(), error
assert refused(dbx.files_move_v2, "/none", "/x").get_from_lookup().is_not_found()
assert refused(dbx.files_move_v2, "/Copy", "/Moved").get_to().get_conflict().is_folder()
assert dbx.files_move_v2("/hash", "/Moved", autorename=True).metadata.name == "Moved (1)"
error = refused(dbx.files_create_folder_v2, "/Copy")
assert error.get_path().get_conflict().is_folder(), error
dbx.files_delete_v2("/Copy")
entries, cursor = follow(cursor)
assert "/Copy" in names(e for e in entries if isinstance(e, files.DeletedMetadata)), entries
assert refused(dbx.files_delete_v2, "/Copy").get_path_lookup().is_not_found()
assert refused(dbx.files_create_folder_v2, "/a/..").get_path().is_disallowed_name()

# ---- an empty file, and a page of many
assert dbx.files_upload(b"", "/empty").size == 0
assert dbx.files_download("/empty")[1].content == b""
for i in range(30):
    dbx.files_upload(b"%d" % i, f"/Many/{i:03}")
page, count = dbx.files_list_folder("/Many", limit=7), 0
while True:
    count += len(page.entries)
    if not page.has_more:
        break
    page = dbx.files_list_folder_continue(page.cursor)
assert count == 30, count
print("the official SDK is served:", dropbox.__version__)
