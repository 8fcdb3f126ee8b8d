"""What is done to a file: to its bytes, its text, what is in it, or the place where it lies."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from ruamel.yaml import YAML

from .tensors import any_array, any_tensor
from .values import PLAIN, any_value, spoiled

Mutator = Callable[[Path, Random], None]
_TOKEN = re.compile(rb"[\w.+-]+|[^\w\s]")


def spoil_bytes(path: Path, random: Random) -> None:
    """Cut, flip, insert, blank, repeat or append bytes, once to three times."""
    content = bytearray(path.read_bytes())
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(content) + 1)
        size = min(random.choice((1, 2, 8, 64, 4096)), len(content) - at)
        kind = random.choice(("cut", "flip", "insert", "blank", "repeat", "lose", "append", "empty"))
        if kind == "cut":
            del content[at:]
        elif kind == "flip" and size:
            content[at] ^= 1 << random.randrange(8)
        elif kind == "insert":
            content[at:at] = random.randbytes(random.choice((1, 8, 300)))
        elif kind == "blank":
            content[at : at + size] = bytes(size)
        elif kind == "repeat":
            content[at:at] = content[at : at + size]
        elif kind == "lose":
            del content[at : at + size]
        elif kind == "append":
            content += content[: random.choice((1, 64, 100_000))]
        elif kind == "empty" and random.random() < 0.2:
            content.clear()
    path.write_bytes(content)


def spoil_text(path: Path, random: Random) -> None:
    """Change words or lines, once to three times."""
    content = path.read_bytes()
    for _ in range(random.choice((1, 1, 2, 3))):
        content = random.choice((_words, _words, _lines))(content, random)
    path.write_bytes(content)


def _words(content: bytes, random: Random) -> bytes:
    words = list(_TOKEN.finditer(content))
    if not words:
        return content
    word = random.choice(words)
    deep = random.choice(
        (b"[" * 1000, b"{a: " * 1000, b"[" * 1000 + b"]" * 1000, b'{"a":' * 1000 + b"1" + b"}" * 1000)
    )
    aliases = b"&a [1, 2]\n" + b"\n".join(b"k%d: &b%d [*a, *a, *a, *a]" % (n, n) for n in range(9))
    plain = str(random.choice(PLAIN[:-1]) if random.random() < 0.9 else "9" * 5000).encode("utf-8", "surrogateescape")
    new = random.choice(
        (plain, plain, plain, b"", word[0] * 2, random.choice(words)[0], deep, aliases, b"\xff\xfe", b"\t")
    )
    return content[: word.start()] + new + content[word.end() :]


def _lines(content: bytes, random: Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    at, other = random.randrange(len(lines)), random.randrange(len(lines))
    kind = random.choice(("lose", "repeat", "swap", "rest", "join"))
    if kind == "lose":
        del lines[at]
    elif kind == "repeat":
        lines.insert(other, lines[at])
    elif kind == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == "rest":
        del lines[at:]
    else:
        lines[at] = lines[at].rstrip(b"\r\n")
    return b"".join(lines)


def spoil_json(path: Path, random: Random) -> None:
    """Change what a JSON file says; NaN and infinity are written as Python writes them."""
    path.write_text(json.dumps(spoiled(json.loads(path.read_text()), random), indent=random.choice((None, 1))))


def spoil_yaml(path: Path, random: Random) -> None:
    """Change what a YAML file says."""
    yaml, text = YAML(typ="safe", pure=True), io.StringIO()
    yaml.dump(spoiled(yaml.load(path.read_text()), random), text)
    path.write_text(text.getvalue(), encoding="utf-8", errors="surrogatepass")


def spoil_table(path: Path, random: Random) -> None:
    """Change cells, rows and columns of a CSV."""
    rows = list(csv.reader(path.read_text().splitlines()))
    for _ in range(random.choice((1, 1, 2, 3))):
        row, column = random.randrange(len(rows)), random.randrange(len(rows[0]))
        kind = random.choice(("cell",) * 5 + ("column", "lose", "repeat", "swap", "lose row", "repeat row", "head"))
        if kind == "cell" and column < len(rows[row]):
            rows[row][column] = str(any_value(random))
        elif kind == "column":
            new = str(any_value(random))
            rows[1:] = [[*cells[:column], new, *cells[column + 1 :]] for cells in rows[1:]]
        elif kind == "lose" and len(rows[0]) > 1:
            rows = [[*cells[:column], *cells[column + 1 :]] for cells in rows]
        elif kind == "repeat":
            rows = [[*cells, *cells[column : column + 1]] for cells in rows]
        elif kind == "swap":
            other = random.randrange(len(rows[0]))
            rows[0][column], rows[0][other] = rows[0][other], rows[0][column]
        elif kind == "lose row" and len(rows) > 1:
            del rows[row]
        elif kind == "repeat row":
            rows.insert(random.randrange(len(rows)), list(rows[row]))
        elif kind == "head":
            rows = rows[:1]
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def spoil_tensors(path: Path, random: Random) -> None:
    """Change what ``torch.save`` wrote: keys, values, tensors of other types and shapes."""
    tree = torch.load(path, weights_only=True)
    torch.save(spoiled(dict(tree), random, any_tensor), path)


def spoil_zip(path: Path, random: Random) -> None:
    """Change one member of an archive: its bytes, its name, its size; leave it out or write it twice."""
    with zipfile.ZipFile(path) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = random.randrange(len(members))
    name, content = members[at]
    kind = random.choice(("bytes", "bytes", "name", "lose", "twice", "cut", "long", "packed"))
    if kind == "bytes" and content:
        place = random.randrange(len(content))
        members[at] = name, content[:place] + random.randbytes(random.choice((1, 4))) + content[place + 1 :]
    elif kind == "name":
        members[at] = random.choice(("../out.npy", "/abs.npy", "", "x" * 300, name.upper(), "a/b/c")), content
    elif kind == "lose":
        del members[at]
    elif kind == "twice":
        members.append(members[at])
    elif kind == "cut":
        members[at] = name, content[: len(content) // 2]
    elif kind == "long":
        members[at] = name, content + bytes(100_000)
    how = zipfile.ZIP_DEFLATED if kind == "packed" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", how) as archive, warnings.catch_warnings(action="ignore"):
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)


def spoil_array(path: Path, random: Random) -> None:
    """Write another array, or the same one with another header."""
    array = np.load(path)
    if random.random() < 0.6:
        np.save(path, any_array(random, array))
        return
    shape = random.choice(((-1, 3, 6, 6), (2**40, 3, 6, 6), (3, 3, 6), (), (0,), (2**62, 4), ("x",), (3.5,)))
    kind = random.choice(
        ("'<f4'", "'|O'", "'<f16'", "'<U100000'", "'<M8[s]'", "None", "'nonsense'", "[('a', '<f4')]")
    )
    header = f"{{'descr': {kind}, 'fortran_order': {random.choice((True, False, 'no'))}, 'shape': {shape!r}, }}\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + array.tobytes())


def spoil_arrays(path: Path, random: Random) -> None:
    """Write other arrays, under the same or other names."""
    with np.load(path) as archive:
        arrays = dict(archive.items())
    name = random.choice(list(arrays))
    arrays[random.choice((name, name, name, "other", "", "arr_0"))] = any_array(random, arrays[name])
    np.savez(path, **arrays)


def spoil_safetensors(path: Path, random: Random) -> None:
    """Change the header of a .safetensors file, or the length that it claims."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.dumps(spoiled(json.loads(content[8 : 8 + size]), random)).encode()
    claimed = random.choice((len(header), len(header), len(header), 2**63, 0, len(header) + 7))
    path.write_bytes(struct.pack("<Q", claimed) + header + content[8 + size :])


def spoil_picture(path: Path, random: Random) -> None:
    """Write a picture of another size or kind."""
    size = random.choice(((1, 1), (6, 6), (7, 5), (5000, 1), (64, 64)))
    kind = random.choice(("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "LA"))
    picture = Image.new(kind, size)
    form = random.choice(("PNG", "JPEG", "TIFF", "GIF", "BMP"))
    try:
        picture.save(path, form)
    except (OSError, ValueError):  # this format does not hold this kind
        picture.convert("RGB").save(path, form)


def misplace(path: Path, random: Random) -> None:
    """Let something else lie at the file's place."""
    others = sorted(p for p in path.parent.iterdir() if p.is_file() and not p.is_symlink() and p != path)
    kind = random.choice(("missing", "empty", "folder", "pipe", "loop", "null", "zero", "other", "other", "huge"))
    size = path.stat().st_size
    path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind in ("null", "zero"):
        path.symlink_to(f"/dev/{kind}")
    elif kind == "other" and others:
        shutil.copy(random.choice(others), path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(size + 2**33)


_BY_ENDING: dict[str, tuple[Mutator, ...]] = {
    ".csv": (spoil_table, spoil_table, spoil_table, spoil_text, spoil_bytes, misplace),
    ".json": (spoil_json, spoil_json, spoil_json, spoil_text, spoil_bytes, misplace),
    ".yaml": (spoil_yaml, spoil_yaml, spoil_yaml, spoil_text, spoil_text, spoil_bytes, misplace),
    ".npy": (spoil_array, spoil_array, spoil_bytes, misplace),
    ".npz": (spoil_arrays, spoil_arrays, spoil_zip, spoil_bytes, misplace),
    ".pth": (spoil_tensors, spoil_tensors, spoil_tensors, spoil_zip, spoil_bytes, misplace),
    ".pt": (spoil_tensors, spoil_tensors, spoil_zip, spoil_bytes, misplace),
    ".ckpt": (spoil_tensors, spoil_tensors, spoil_tensors, spoil_zip, spoil_bytes, misplace),
    ".safetensors": (spoil_safetensors, spoil_safetensors, spoil_bytes, misplace),
    ".png": (spoil_picture, spoil_bytes, misplace),
}


def spoil(path: Path, random: Random) -> str:
    """Do something to a file; return what, in a word."""
    mutator = random.choice(_BY_ENDING.get(path.suffix, (spoil_bytes, misplace)))
    mutator(path, random)
    return mutator.__name__
