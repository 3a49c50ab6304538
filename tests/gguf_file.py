"""GGUF files taken apart and put together again, with whatever a test wants in them: nothing is checked."""
import pathlib
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
TENSOR_F32 = 0
# Type id: elements and bytes of a block; the types that tests meet.
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 14: (256, 210), 30: (1, 2)}


def text_bytes(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def value_bytes(kind, value):
    if kind == STRING:
        return text_bytes(value)
    if kind != ARRAY:
        return struct.pack("<" + FORMATS[kind], value)
    of, elements = value
    return struct.pack("<IQ", of, len(elements)) + b"".join(value_bytes(of, e) for e in elements)


class _Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, code):
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self):
        length = self.number("Q")
        self.at += length
        return self.data[self.at - length : self.at]

    def value(self, kind):
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.number(FORMATS[kind])
        of, n = self.number("I"), self.number("Q")
        return of, [self.value(of) for _ in range(n)]


class Gguf:
    """keys: {name: (type, value)}, an array's value being (type, list); tensors: {name: [dims, type id, bytes]}."""

    def __init__(self, path):
        c = _Cursor(pathlib.Path(path).read_bytes())
        c.at = 8
        n_tensors, n_keys = c.number("Q"), c.number("Q")
        self.keys, self.tensors, places = {}, {}, []
        for _ in range(n_keys):
            key, kind = c.text().decode(), c.number("I")
            self.keys[key] = (kind, c.value(kind))
        for _ in range(n_tensors):
            name = c.text().decode()
            dims = [c.number("Q") for _ in range(c.number("I"))]
            places.append((name, dims, c.number("I"), c.number("Q")))
        begin = -(-c.at // 32) * 32
        for name, dims, kind, offset in places:
            self.tensors[name] = [dims, kind, c.data[begin + offset :][: self.size(dims, kind)]]

    @staticmethod
    def size(dims, kind):
        elements = 1
        for n in dims:
            elements *= n
        return elements // BLOCKS[kind][0] * BLOCKS[kind][1]

    def set(self, key, kind, value):
        self.keys[key] = (kind, value)
        return self

    def drop(self, *keys):
        for key in keys:
            self.keys.pop(key, None)
        return self

    def floats(self, name, values):
        """A tensor of one dimension."""
        self.tensors[name] = [[len(values)], TENSOR_F32, struct.pack(f"<{len(values)}f", *values)]
        return self

    def write(self, path):
        out = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.keys))
        out += b"".join(text_bytes(k) + struct.pack("<I", kind) + value_bytes(kind, v) for k, (kind, v) in self.keys.items())
        data = b""
        for name, (dims, kind, content) in self.tensors.items():
            out += text_bytes(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
            out += struct.pack("<IQ", kind, len(data))
            data += content + b"\0" * (-len(content) % 32)
        path = pathlib.Path(path)
        path.write_bytes(out + b"\0" * (-len(out) % 32) + data)
        return path
