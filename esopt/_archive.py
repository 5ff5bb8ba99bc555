"""Arrays in one ``.npz`` file: written all or nothing, read without trusting a byte of it.

Members are stored, not compressed, so that nothing that a file declares makes a reader allocate more than the file has.
"""

from __future__ import annotations

import errno
import io
import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

CHUNK = 2**20


@contextmanager
def replacing(target: str, what: str) -> Iterator[IO[bytes]]:
    """Yield a temporary file that takes the place of ``target`` once it is on the disk, or disappears."""
    folder, name = os.path.split(target)
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, f"cannot save {what} over a folder; pass the name of a file", target)
    temporary = os.path.join(folder, f".{name[:50]}.{os.urandom(8).hex()}.tmp")
    try:
        try:
            file = open(temporary, "xb")
        except OSError as error:
            reason = f"cannot save {what} here ({error.strerror}); pass a path in an existing, writable folder"
            raise OSError(error.errno, reason, target) from None
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


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
    shape, fortran, dtype = npy.read_array_header_1_0(whole)
    if dtype.kind not in kinds or math.prod(shape) * dtype.itemsize != data.size:
        raise ValueError(f"{info.filename} says it holds {dtype} {shape} and has {data.size} bytes")
    array = data.view(dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
