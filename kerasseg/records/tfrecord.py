"""The TFRecord framing: length, checksum, payload, checksum.

Format: tensorflow.org/tutorials/load_data/tfrecord. Checksums are masked CRC-32C.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from kerasseg.errors import UserError

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
FRAMING_BYTES = _HEADER.size + _FOOTER.size


def masked_crc(data: bytes) -> int:
    """CRC-32C of `data`, rotated and shifted as TFRecord asks."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def write_record(file: BinaryIO, payload: bytes) -> int:
    """Append one record; returns the masked checksum of the payload."""
    length = struct.pack("<Q", len(payload))
    checksum = masked_crc(payload)
    file.write(length + struct.pack("<I", masked_crc(length)))
    file.write(payload)
    file.write(_FOOTER.pack(checksum))
    return checksum


def read_record(path: Path, offset: int, case_id: str) -> bytes:
    """Read and check the record at `offset`. Raises `UserError` naming file and case."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            header = file.read(_HEADER.size)
            if len(header) == _HEADER.size:
                length, crc = _HEADER.unpack(header)
                if crc == masked_crc(header[:8]):
                    payload = file.read(length)
                    footer = file.read(_FOOTER.size)
                    if len(footer) == _FOOTER.size and _FOOTER.unpack(footer)[0] == masked_crc(
                        payload
                    ):
                        return payload
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}.") from None
    raise UserError(
        f"{path}: the record of case {case_id} at byte {offset} is damaged (its checksum does not "
        "match). Bring the store up to date with kerasseg convert."
    )
