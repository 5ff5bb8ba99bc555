"""Arrays in one ``.npz`` file: written all or nothing, sealed, read without trusting a byte of it.

Members are stored, not compressed, so that nothing that a file declares makes a reader allocate more than the file has.
The file ends with the SHA-256 of every byte before it, as the comment of the archive, which other readers pass over.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import math
import os
import re
import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

CHUNK = 2**20

_SEAL = b"esopt sha256 "
_DIGEST = 64
_DIRECTORY_LIMIT = 4 * 2**20
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"


@contextmanager
def archiving(target: str, what: str, previous: str | None = None) -> Iterator[zipfile.ZipFile]:
    """Yield an archive that takes the place of ``target``, sealed, once it is on the disk; see :func:`replacing`.

    Raises
    ------
    ValueError  for so many members that the directory of the archive takes more than 4 MiB.
    """
    with replacing(target, what, previous) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.comment = _SEAL + bytes(_DIGEST)
            yield archive
            entries = sum(46 + 2 * len(info.filename.encode()) for info in archive.infolist())
        if entries > _DIRECTORY_LIMIT:
            raise ValueError(
                f"cannot save {what}: it has {len(archive.infolist())} arrays. Join them to fewer, larger ones."
            )
        digest = _digest(file)
        file.seek(-_DIGEST, os.SEEK_END)
        file.write(digest)


@contextmanager
def replacing(target: str, what: str, previous: str | None = None) -> Iterator[IO[bytes]]:
    """Yield a temporary file that takes the place of ``target`` once it is on the disk, or disappears.

    What ``target`` was is kept as ``previous``, if that is given. What killed processes left is removed.
    """
    folder, name = os.path.split(target)
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, f"cannot save {what} over a folder; pass the name of a file", target)
    if os.path.exists(target) and not os.path.isfile(target):
        raise OSError(errno.EINVAL, f"cannot save {what} over a device or a pipe; pass the name of a file", target)
    _tidy(folder, name)
    temporary = _temporary(folder, name)
    try:
        try:
            file = open(temporary, "x+b")
        except OSError as error:
            reason = f"cannot save {what} here ({error.strerror}); pass a path in an existing, writable folder"
            raise OSError(error.errno, reason, target) from None
        with file:
            _lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None:
            _keep(target, previous)
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


def _temporary(folder: str, name: str) -> str:
    return os.path.join(folder, f".{name[:50]}.{os.urandom(8).hex()}.tmp")


def _keep(target: str, previous: str) -> None:
    """Make ``previous`` what ``target`` is now, unless that is damaged; ``target`` is there all the time.

    A file that cannot be kept, on a full disk for example, does not keep the next one from being written.
    """
    folder, name = os.path.split(target)
    temporary = _temporary(folder, name)
    with contextlib.suppress(OSError):
        if not os.path.exists(target):
            os.unlink(previous)  # of a run whose file the user removed
        elif not os.path.exists(previous) or not (os.path.samefile(target, previous) or not is_sealed(target)):
            try:
                os.link(target, temporary)
            except OSError:  # a file system without links
                shutil.copyfile(target, temporary)
            os.replace(temporary, previous)
    with contextlib.suppress(OSError):
        os.unlink(temporary)


def _lock(file: IO[bytes]) -> None:
    """Tell other processes, as long as this one lives, that a temporary file is being written."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return


def _tidy(folder: str, name: str) -> None:
    """Remove the temporary files of ``name`` that no process is writing: those of processes that were killed."""
    pattern = re.compile(re.escape(f".{name[:50]}.") + r"[0-9a-f]{16}\.tmp")
    with contextlib.suppress(OSError):
        for found in os.listdir(folder or "."):
            if pattern.fullmatch(found):
                _remove_unlocked(os.path.join(folder, found))


def _remove_unlocked(path: str) -> None:
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)


def _sync_folder(folder: str) -> None:
    """Make a rename durable, where the system lets a folder be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def write_member(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    """Write one array; equal arrays give equal bytes."""
    head = io.BytesIO()
    entry = npy.header_data_from_array_1_0(array)
    npy.write_array_header_1_0(head, entry)
    data = np.ascontiguousarray(array.T if entry["fortran_order"] else array)
    info = zipfile.ZipInfo(f"{name}.npy")  # of a fixed date: equal states give equal files
    info.external_attr = 0o644 << 16
    info.file_size = len(head.getvalue()) + data.nbytes
    with archive.open(info, "w") as stream:
        stream.write(head.getvalue())
        stream.write(data.reshape(-1).view(np.uint8).data)


def opened(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file for reading.

    Raises
    ------
    ValueError  for a pipe or a device, which may have no end.
    OSError  if it is not there, or a folder.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ValueError(f"{os.fspath(path)} is a pipe or a device, expected a file. Copy it to one.")
    return open(path, "rb")


def is_sealed(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is whole, as its checksum says; one without any may or may not be."""
    try:
        with opened(path) as file:
            return check_seal(file)
    except ValueError:
        return False


def check_seal(file: IO[bytes]) -> bool:
    """Return whether the file ends with a checksum, which files of format 1 may not.

    Raises
    ------
    ValueError  if the checksum is not that of the other bytes, or if the directory is larger than any that is written.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _DIGEST - len(_SEAL)))
    tail = file.read()
    sealed = tail.startswith(_SEAL)
    if sealed and _digest(file) != tail[len(_SEAL) :]:
        raise ValueError("its checksum is not that of its contents")
    _check_directory(file, size)
    file.seek(0)
    return sealed


def _digest(file: IO[bytes]) -> bytes:
    """Return the SHA-256 of all but the last 64 bytes, in hexadecimal."""
    found, left = hashlib.sha256(), file.seek(0, os.SEEK_END) - _DIGEST
    file.seek(0)
    while left > 0:
        chunk = file.read(min(left, CHUNK))
        if not chunk:
            raise ValueError("it got shorter while it was read")
        found.update(chunk)
        left -= len(chunk)
    return found.hexdigest().encode()


def _check_directory(file: IO[bytes], size: int) -> None:
    """Raise ValueError for a directory that would take much memory; zipfile reads it before anything can be asked."""
    begin = max(0, size - 2**16 - 22 - 76)
    file.seek(begin)
    tail = file.read()
    at = len(tail) - 22
    if at < 0 or tail[at : at + 4] != _END or tail[-2:] != b"\0\0":
        at = tail.rfind(_END)
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR64:  # beyond 4 GiB or 65,535 members
        record = at - 76
        place = int.from_bytes(tail[at - 12 : at - 4], "little")
        if record < 0 or tail[record : record + 4] != _END64 or place != begin + record:
            raise ValueError("its directory is not where it should be")
        length = int.from_bytes(tail[record + 40 : record + 48], "little")
    if at >= 0 and length > _DIRECTORY_LIMIT:
        raise ValueError(f"its directory takes {length} bytes")
    if at >= 0 and at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") != len(tail):
        raise ValueError("its end is missing, or there is something behind it")


def members_of(archive: zipfile.ZipFile, size: int, header: str) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name; stored, not compressed, so that no declared size exceeds the size of the file."""
    infos = archive.infolist()
    members = {info.filename: info for info in infos}
    if f"{header}.npy" not in members:
        raise ValueError(f"it has no member {header}")
    if len(members) < len(infos):
        raise ValueError("a member occurs twice")
    if any(info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size for info in infos):
        raise ValueError("it has compressed members")
    if sum(info.file_size for info in infos) > size or min(info.header_offset for info in infos) != 0:
        raise ValueError("its members do not fit into it")
    return members


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, kinds: str = "biufc") -> NDArray[Any]:
    """Read one array of the given kinds of dtype; nothing of it is interpreted before its checksum is."""
    with archive.open(info) as stream:
        prefix = stream.read(10)  # magic string, version, length of the header
        head = stream.read(int.from_bytes(prefix[8:], "little"))
        data = np.empty(max(0, info.file_size - len(prefix) - len(head)), np.uint8)
        for start in range(0, data.size, CHUNK):
            chunk = stream.read(CHUNK)
            data[start : start + len(chunk)] = np.frombuffer(chunk, np.uint8)
        if stream.read(1):
            raise ValueError(f"{info.filename} is longer than it says")
    whole = io.BytesIO(prefix + head)
    if npy.read_magic(whole) != (1, 0):
        raise ValueError(f"{info.filename} is not in npy format 1.0")
    try:
        shape, fortran, dtype = npy.read_array_header_1_0(whole)
    except MemoryError:  # what Python's parser says of deep nesting
        raise ValueError(f"{info.filename} has an unreadable header") from None
    if dtype.kind not in kinds or math.prod(shape) * dtype.itemsize != data.size:
        raise ValueError(f"{info.filename} says it holds {dtype} {shape} and has {data.size} bytes")
    array = data.view(dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
